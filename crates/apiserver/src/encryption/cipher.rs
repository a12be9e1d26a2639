//! The ciphers and the layout of what they write: a prefix, a nonce and the ciphertext, as upstream's providers have it.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use rand::RngCore;

use super::EncryptionError;

const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const CBC_BLOCK: usize = 16;

/// One key, ready for use.
pub enum Cipher {
    Gcm(Gcm),
    Secretbox(XSalsa20Poly1305),
    Cbc(CbcKey),
}

/// AES-GCM with each length of key. The place of the value is authenticated with it.
pub enum Gcm {
    Short(Aes128Gcm),
    Middle(AesGcm<Aes192, U12>),
    Long(Aes256Gcm),
}

/// AES-CBC with PKCS #7 padding, which authenticates nothing; for data from older configurations.
pub enum CbcKey {
    Short([u8; 16]),
    Middle([u8; 24]),
    Long([u8; 32]),
}

impl Cipher {
    /// `None` for a key of a length that AES has not.
    pub fn gcm(key: &[u8]) -> Option<Self> {
        Some(Cipher::Gcm(match key.len() {
            16 => Gcm::Short(Aes128Gcm::new_from_slice(key).ok()?),
            24 => Gcm::Middle(AesGcm::new_from_slice(key).ok()?),
            32 => Gcm::Long(Aes256Gcm::new_from_slice(key).ok()?),
            _ => return None,
        }))
    }

    pub fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(Cipher::Secretbox)
    }

    pub fn cbc(key: &[u8]) -> Option<Self> {
        let short = || key.try_into().ok().map(CbcKey::Short);
        let middle = || key.try_into().ok().map(CbcKey::Middle);
        let long = || key.try_into().ok().map(CbcKey::Long);
        short().or_else(middle).or_else(long).map(Cipher::Cbc)
    }

    /// `prefix`, a fresh nonce and the ciphertext.
    pub fn seal(&self, prefix: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let size = match self {
            Cipher::Gcm(_) => GCM_NONCE,
            Cipher::Secretbox(_) => BOX_NONCE,
            Cipher::Cbc(_) => CBC_BLOCK,
        };
        let mut nonce = [0; BOX_NONCE];
        let nonce = &mut nonce[..size];
        rand::rng().fill_bytes(nonce);
        let body = match self {
            Cipher::Gcm(key) => key.seal(nonce, Payload { msg: plain, aad: place }),
            Cipher::Secretbox(key) => key.encrypt((&*nonce).into(), plain).ok(),
            Cipher::Cbc(key) => key.seal(nonce, plain),
        };
        Ok([prefix, nonce, &body.ok_or(EncryptionError::Seal)?].concat())
    }

    /// `None` if it was not sealed with this key, or not for this place.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Cipher::Gcm(key) => {
                let (nonce, body) = sealed.split_at_checked(GCM_NONCE)?;
                key.open(nonce, Payload { msg: body, aad: place })
            }
            Cipher::Secretbox(key) => {
                let (nonce, body) = sealed.split_at_checked(BOX_NONCE)?;
                key.decrypt(nonce.into(), body).ok()
            }
            Cipher::Cbc(key) => {
                let (vector, body) = sealed.split_at_checked(CBC_BLOCK)?;
                key.open(vector, body)
            }
        }
    }
}

impl Gcm {
    fn seal(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        match self {
            Gcm::Short(key) => key.encrypt(nonce.into(), payload),
            Gcm::Middle(key) => key.encrypt(nonce.into(), payload),
            Gcm::Long(key) => key.encrypt(nonce.into(), payload),
        }
        .ok()
    }

    fn open(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        match self {
            Gcm::Short(key) => key.decrypt(nonce.into(), payload),
            Gcm::Middle(key) => key.decrypt(nonce.into(), payload),
            Gcm::Long(key) => key.decrypt(nonce.into(), payload),
        }
        .ok()
    }
}

impl CbcKey {
    fn seal(&self, vector: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        Some(match self {
            CbcKey::Short(key) => encryptor::<Aes128>(key, vector)?.encrypt_padded_vec_mut::<Pkcs7>(plain),
            CbcKey::Middle(key) => encryptor::<Aes192>(key, vector)?.encrypt_padded_vec_mut::<Pkcs7>(plain),
            CbcKey::Long(key) => encryptor::<Aes256>(key, vector)?.encrypt_padded_vec_mut::<Pkcs7>(plain),
        })
    }

    fn open(&self, vector: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        match self {
            CbcKey::Short(key) => decryptor::<Aes128>(key, vector)?.decrypt_padded_vec_mut::<Pkcs7>(body),
            CbcKey::Middle(key) => decryptor::<Aes192>(key, vector)?.decrypt_padded_vec_mut::<Pkcs7>(body),
            CbcKey::Long(key) => decryptor::<Aes256>(key, vector)?.decrypt_padded_vec_mut::<Pkcs7>(body),
        }
        .ok()
    }
}

fn encryptor<C>(key: &[u8], vector: &[u8]) -> Option<cbc::Encryptor<C>>
where
    C: BlockEncryptMut + cbc::cipher::BlockCipher,
    cbc::Encryptor<C>: KeyIvInit,
{
    cbc::Encryptor::new_from_slices(key, vector).ok()
}

fn decryptor<C>(key: &[u8], vector: &[u8]) -> Option<cbc::Decryptor<C>>
where
    C: BlockDecryptMut + cbc::cipher::BlockCipher,
    cbc::Decryptor<C>: KeyIvInit,
{
    cbc::Decryptor::new_from_slices(key, vector).ok()
}
