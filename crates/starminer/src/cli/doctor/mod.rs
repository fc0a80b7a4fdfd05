//! stub
use super::args::DoctorArgs; use super::exit::Failure; use super::terminal::Terminal;
pub fn doctor(_: &Terminal, _: &DoctorArgs) -> Result<u8, Failure> { Ok(0) }
