//! Where report data stands in what a TEE signs, so that an answer to somebody else's request shows at once.
//!
//! This verifies nothing: whoever could forge an answer could forge these bytes. It tells a mix-up on this machine from an
//! attack, before the evidence is sent.

/// Length of report data.
pub const REPORT_DATA_BYTES: usize = 64;

const SNP_OFFSET: usize = 0x50;
const QUOTE_HEADER: usize = 48;
/// Within an SGX enclave's report body.
const SGX_OFFSET: usize = QUOTE_HEADER + 320;
/// Within a TD's report body.
const TDX_OFFSET: usize = QUOTE_HEADER + 520;
/// Version 5 puts type (2 bytes) and length (4 bytes) before the body.
const V5_DESCRIPTOR: usize = 6;

/// In an SEV-SNP report (AMD 56860, ATTESTATION_REPORT).
pub(crate) fn of_snp(report: &[u8]) -> Option<&[u8]> {
    report.get(SNP_OFFSET..SNP_OFFSET + REPORT_DATA_BYTES)
}

/// In a TDX quote of version 4 or 5 (Intel TDX DCAP Quoting Library API, appendix 3). Other versions are not known here.
pub(crate) fn of_tdx(quote: &[u8]) -> Option<&[u8]> {
    let offset = match version(quote)? {
        4 => TDX_OFFSET,
        5 => TDX_OFFSET + V5_DESCRIPTOR,
        _ => return None,
    };
    quote.get(offset..offset + REPORT_DATA_BYTES)
}

/// In an SGX quote of version 3 (Intel SGX ECDSA QuoteLibReference, appendix A). Other versions are not known here.
pub(crate) fn of_sgx(quote: &[u8]) -> Option<&[u8]> {
    (version(quote)? == 3).then(|| quote.get(SGX_OFFSET..SGX_OFFSET + REPORT_DATA_BYTES))?
}

/// MRENCLAVE in an SGX quote of version 3.
pub(crate) fn enclave_of_sgx(quote: &[u8]) -> Option<&[u8]> {
    (version(quote)? == 3).then(|| quote.get(QUOTE_HEADER + 64..QUOTE_HEADER + 96))?
}

fn version(quote: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes([*quote.first()?, *quote.get(1)?]))
}
