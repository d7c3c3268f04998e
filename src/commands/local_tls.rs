//! `tls`: a certificate authority of one's own, for phones and laptops on the same network.

use std::io::Write as _;
use std::path::Path;

use mommygpt::web::local_ca;

use super::{Failure, Out};

/// `tls [NAME]...`.
pub(super) fn make(dir: &Path, names: &[String], out: &mut Out) -> Result<(), Failure> {
    let made = local_ca::make(dir, names).map_err(|e| Failure::failed(e.to_string()))?;
    let what =
        if made.is_new_authority { "Made a certificate authority" } else { "Kept the certificate authority" };
    writeln!(out, "{what}: {}", made.authority.display())?;
    writeln!(out, "Made a certificate for {}: {}", made.names.join(", "), made.certificate.display())?;
    writeln!(out, "\nSHA-256 fingerprint of the authority:\n{}\n", made.fingerprint)?;
    writeln!(out, "{}", made.qr_code)?;
    writeln!(
        out,
        "Copy {} to each phone and laptop and trust it there; compare the fingerprint it shows with the one above.\n\
         Then start the server with `mommygpt serve --tls --host 0.0.0.0`.",
        made.authority.display()
    )?;
    Ok(())
}
