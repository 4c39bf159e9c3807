//! Cosign's encrypted private keys: JSON with PKCS #8 in NaCl's secretbox, with a key derived by scrypt.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The PEM labels of encrypted keys. The first one is written.
pub(crate) const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// The scrypt cost as log2(N). cosign 3 uses 2^16 and older versions 2^15. Unit tests of this crate derive dozens of
/// keys and use a lower cost; the program's tests use the real one.
const LOG_N: u8 = if cfg!(test) { 10 } else { 16 };
/// The maximum scrypt cost that is accepted as log2(N): memory is 128 · r · N bytes, and the file is untrusted input.
const MAX_LOG_N: u8 = 18;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptedKeyJson {
    kdf: KdfJson,
    cipher: CipherJson,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KdfJson {
    name: String,
    params: KdfParamsJson,
    salt: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KdfParamsJson {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CipherJson {
    name: String,
    nonce: String,
}

pub(crate) fn decrypt(json: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let refuse = |why: &str| Error::Key(format!("its encryption is not supported: {why}"));
    let json: EncryptedKeyJson = serde_json::from_slice(json).map_err(|error| refuse(&error.to_string()))?;
    if json.kdf.name != "scrypt" || json.cipher.name != "nacl/secretbox" {
        return Err(refuse("it is not scrypt and nacl/secretbox"));
    }
    let KdfParamsJson { n, r, p } = json.kdf.params;
    let log_n = n.checked_ilog2().and_then(|log| u8::try_from(log).ok());
    let log_n = log_n.filter(|log| n.is_power_of_two() && (1..=MAX_LOG_N).contains(log) && r == 8 && p == 1);
    let log_n = log_n.ok_or_else(|| refuse("its scrypt parameters are not those of cosign"))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| refuse("it is not in base64"));
    let nonce: [u8; 24] = decode(&json.cipher.nonce)?.try_into().map_err(|_| refuse("the nonce has not 24 bytes"))?;
    let key = derive(password, &decode(&json.kdf.salt)?, log_n)?;
    open(&key, &nonce, &decode(&json.ciphertext)?).ok_or(Error::Password("the password is wrong"))
}

pub(crate) fn encrypt(plain: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    for bytes in [&mut salt[..], &mut nonce[..]] {
        rand::fill(bytes).map_err(|_| Error::Key("the system has no randomness".to_owned()))?;
    }
    let key = derive(password, &salt, LOG_N)?;
    let json = EncryptedKeyJson {
        kdf: KdfJson {
            name: "scrypt".to_owned(),
            params: KdfParamsJson { n: 1 << LOG_N, r: 8, p: 1 },
            salt: STANDARD.encode(salt),
        },
        cipher: CipherJson { name: "nacl/secretbox".to_owned(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(seal(&key, &nonce, plain)),
    };
    let json = serde_json::to_vec(&json).map_err(|error| Error::Key(error.to_string()))?;
    Ok(Zeroizing::new(json))
}

fn derive(password: &[u8], salt: &[u8], log_n: u8) -> Result<Zeroizing<[u8; 32]>> {
    let failed = || Error::Key("scrypt failed".to_owned());
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| failed())?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password, salt, &params, &mut *key).map_err(|_| failed())?;
    Ok(key)
}

/// Encrypts like NaCl's `crypto_secretbox`: the first 32 bytes of the key stream are the key of the tag, which
/// precedes the ciphertext.
fn seal(key: &[u8; 32], nonce: &[u8; 24], plain: &[u8]) -> Vec<u8> {
    let (tag_key, mut stream) = streams(key, nonce);
    let mut text = plain.to_vec();
    stream.apply_keystream(&mut text);
    let tag = Poly1305::new((&*tag_key).into()).compute_unpadded(&text);
    [&tag[..], &text].concat()
}

fn open(key: &[u8; 32], nonce: &[u8; 24], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (tag, text) = sealed.split_at_checked(16)?;
    let (tag_key, mut stream) = streams(key, nonce);
    let right = Poly1305::new((&*tag_key).into()).compute_unpadded(text);
    aws_lc_rs::constant_time::verify_slices_are_equal(tag, &right).ok()?;
    let mut plain = Zeroizing::new(text.to_vec());
    stream.apply_keystream(&mut plain);
    Some(plain)
}

fn streams(key: &[u8; 32], nonce: &[u8; 24]) -> (Zeroizing<[u8; 32]>, XSalsa20) {
    let mut stream = XSalsa20::new(key.into(), nonce.into());
    let mut tag_key = Zeroizing::new([0; 32]);
    stream.apply_keystream(&mut *tag_key);
    (tag_key, stream)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nacl_test_vector_decrypts() {
        // The test vector of NaCl, `tests/secretbox.c` and `tests/secretbox.out`.
        let key = hex::decode("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").unwrap();
        let nonce = hex::decode("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").unwrap();
        let plain = hex::decode(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01\
             233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd\
             4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        )
        .unwrap();
        let (key, nonce) = (key.try_into().unwrap(), nonce.try_into().unwrap());
        let sealed = seal(&key, &nonce, &plain);
        assert_eq!(hex::encode(&sealed[..24]), "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273");
        assert_eq!(**open(&key, &nonce, &sealed).unwrap(), plain);
    }

    #[test]
    fn excessive_scrypt_costs_are_refused() {
        let sealed = encrypt(b"plain", b"password").unwrap();
        let text = std::str::from_utf8(&sealed).unwrap();
        let cost = format!("\"N\":{}", 1 << LOG_N);
        for (what, with) in [
            (cost.as_str(), "\"N\":1073741824"),
            (&cost, "\"N\":65535"),
            (&cost, "\"N\":0"),
            ("\"r\":8", "\"r\":4000000000"),
            ("\"p\":1", "\"p\":1000"),
            ("nacl/secretbox", "aes"),
            ("\"kdf\"", "\"kdg\""),
        ] {
            let changed = text.replace(what, with);
            assert!(
                changed != text && matches!(decrypt(changed.as_bytes(), b"password"), Err(Error::Key(_))),
                "{with}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_detected(plain in proptest::collection::vec(any::<u8>(), 1..100), place in any::<usize>()) {
            let (key, nonce) = ([7; 32], [9; 24]);
            let mut sealed = seal(&key, &nonce, &plain);
            prop_assert_eq!(&**open(&key, &nonce, &sealed).unwrap(), &plain);
            let place = place % sealed.len();
            sealed[place] ^= 0x80;
            prop_assert!(open(&key, &nonce, &sealed).is_none());
        }

        #[test]
        fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decrypt(&bytes, b"");
        }
    }
}
