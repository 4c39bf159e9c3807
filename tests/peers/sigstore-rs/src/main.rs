//! `sigstore-rs sign KEY IMAGE` and `sigstore-rs verify PUBLIC-KEY IMAGE`, for a registry that speaks plain HTTP.

use std::error::Error;

use sigstore::cosign::constraint::PrivateKeySigner;
use sigstore::cosign::verification_constraint::{PublicKeyVerifier, VerificationConstraintVec};
use sigstore::cosign::{ClientBuilder, Constraint, CosignCapabilities, SignatureLayer, verify_constraints};
use sigstore::crypto::SigningScheme;
use sigstore::registry::{Auth, ClientConfig, ClientProtocol, OciReference};
use zeroize::Zeroizing;

const SCHEME: SigningScheme = SigningScheme::ECDSA_P256_SHA256_ASN1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [command, key, image] = &arguments[..] else { return Err("usage: sigstore-rs sign|verify KEY IMAGE".into()) };
    let (key, image): (_, OciReference) = (std::fs::read(key)?, image.parse()?);
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let mut client = ClientBuilder::default().with_oci_client_config(config).build()?;
    let (place, digest) = client.triangulate(&image, &Auth::Anonymous).await?;
    match command.as_str() {
        "sign" => {
            let mut layer = SignatureLayer::new_unsigned(&image, &digest)?;
            PrivateKeySigner::new_with_raw(Zeroizing::new(key), Zeroizing::default(), &SCHEME)?
                .add_constraint(&mut layer)?;
            client.push_signature(None, &Auth::Anonymous, &place, vec![layer]).await?;
        }
        "verify" => {
            let layers = client.trusted_signature_layers(&Auth::Anonymous, &image).await?;
            let verifier = PublicKeyVerifier::new(&key, &SCHEME)?;
            let constraints: VerificationConstraintVec = vec![Box::new(verifier)];
            verify_constraints(&layers, constraints.iter()).map_err(|error| error.to_string())?;
        }
        _ => return Err(format!("there is no command {command}").into()),
    }
    println!("{digest}");
    Ok(())
}
