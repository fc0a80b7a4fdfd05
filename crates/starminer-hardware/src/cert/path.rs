//! Paths from a leaf to roots, by names alone.

use std::borrow::Cow;

use x509_parser::prelude::{FromDer as _, X509Name};

use super::{Certificate, ChainError, ChainFault, ChainOptions, MAX_DEPTH, Place, Provenance, Quirk, Roots};

/// The most paths that are tried for a leaf.
const MAX_PATHS: usize = 8;
/// The most partial paths that are looked at for a leaf.
const MAX_STEPS: usize = 64;
/// The most intermediates that are looked at.
const MAX_INTERMEDIATES: usize = 32;

/// Leaf to root.
pub(super) type Path<'a> = (Vec<&'a Certificate>, Provenance);

/// Paths to roots by names, short ones first.
pub(super) fn paths<'a>(
    leaf: &'a Certificate,
    intermediates: &'a [Certificate],
    roots: &'a Roots,
    options: &ChainOptions<'_>,
) -> Result<Vec<Path<'a>>, ChainError> {
    let loose = options.quirks.contains(&Quirk::NameEncoding);
    let mut complete: Vec<Path<'a>> = Vec::new();
    let mut partial = std::collections::VecDeque::from([vec![leaf]]);
    let mut farthest: &Certificate = leaf;
    let mut farthest_steps = 0;
    let mut steps = 0;
    while let Some(path) = partial.pop_front() {
        steps += 1;
        if steps > MAX_STEPS || complete.len() >= MAX_PATHS {
            break;
        }
        let Some(&last) = path.last() else { continue };
        if path.len() - 1 > farthest_steps {
            (farthest, farthest_steps) = (last, path.len() - 1);
        }
        let wanted = canonical(last.issuer(), loose);
        for (root, provenance) in roots.iter().filter(|(root, _)| canonical(root.subject(), loose) == wanted) {
            let mut path = path.clone();
            path.push(root);
            complete.push((path, provenance));
        }
        if path.len() + 1 >= MAX_DEPTH {
            continue;
        }
        // A certificate that names itself as its issuer leads nowhere: as a root it would be among the roots.
        let next = intermediates.iter().take(MAX_INTERMEDIATES).filter(|next| {
            canonical(next.subject(), loose) == wanted && next.subject() != next.issuer() && !path.contains(next)
        });
        for next in next {
            let mut path = path.clone();
            path.push(next);
            partial.push_back(path);
        }
    }
    if complete.is_empty() {
        let place = if farthest_steps == 0 { Place::Leaf } else { Place::Intermediate(farthest_steps) };
        let fault = if farthest_steps + 2 >= MAX_DEPTH {
            ChainFault::TooDeep
        } else {
            ChainFault::NoIssuer { issuer: farthest.issuer_name() }
        };
        return Err(ChainError::new(place, farthest, fault));
    }
    complete.truncate(MAX_PATHS);
    Ok(complete)
}

/// The name as it is compared.
fn canonical(name: &[u8], loose: bool) -> Cow<'_, [u8]> {
    if !loose {
        return Cow::Borrowed(name);
    }
    let Ok((_, parsed)) = X509Name::from_der(name) else { return Cow::Borrowed(name) };
    let mut out = Vec::with_capacity(name.len());
    for part in parsed.iter_rdn() {
        out.push(b'/');
        for attribute in part.iter() {
            out.push(b'+');
            out.extend(attribute.attr_type().as_bytes());
            out.push(b'=');
            match attribute.as_str() {
                Ok(text) => out.extend(text.trim().to_lowercase().as_bytes()),
                Err(_) => out.extend(attribute.as_slice()),
            }
            out.push(0);
        }
    }
    Cow::Owned(out)
}
