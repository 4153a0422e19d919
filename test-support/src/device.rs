//! A device in software: its keys, and the proofs that a browser signs with them. Hostile ones too.

use p256::ecdsa::signature::Signer as _;
use rsa::{BoxedUint, Pkcs1v15Sign, PrivateKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::base64::encode;

/// The key pair that a device keeps.
#[derive(Clone)]
pub struct Device(Key);

#[derive(Clone)]
enum Key {
    Es256(p256::ecdsa::SigningKey),
    Rs256(Box<PrivateKey>, &'static RsaParts),
}

impl Device {
    /// A device with a key of ES256. Each number is another key.
    pub fn es256(number: u8) -> Self {
        let key = p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap();
        Self(Key::Es256(key))
    }

    /// A device with a key of RS256, of 2048 bits.
    pub fn rs256() -> Self {
        Self::rsa(&RSA_2048)
    }

    /// A device with a key of RS256 that is too short: 1024 bits.
    pub fn weak_rs256() -> Self {
        Self::rsa(&RSA_1024)
    }

    fn rsa(parts: &'static RsaParts) -> Self {
        let number = |digits: &str| BoxedUint::from_be_slice_vartime(&from_hex(digits));
        let key = PrivateKey::from_components(
            number(parts.n),
            BoxedUint::from(65537_u64),
            number(parts.d),
            vec![number(parts.p), number(parts.q)],
        );
        Self(Key::Rs256(Box::new(key.unwrap()), parts))
    }

    pub fn algorithm(&self) -> &'static str {
        match &self.0 {
            Key::Es256(_) => "ES256",
            Key::Rs256(..) => "RS256",
        }
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        match &self.0 {
            Key::Es256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                let (x, y) = point.as_bytes()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Key::Rs256(_, parts) => {
                json!({ "kty": "RSA", "n": encode(&from_hex(parts.n)), "e": "AQAB" })
            }
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Key::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Key::Rs256(key, _) => {
                let hash = Sha256::digest(message);
                key.sign(Pkcs1v15Sign::new::<Sha256>(), &hash).unwrap()
            }
        }
    }

    /// The proof of a registration.
    pub fn registration(&self, challenge: &str) -> String {
        self.registration_with(self.jwk(), challenge)
    }

    /// The proof of a registration that brings this key.
    pub fn registration_with(&self, jwk: Value, challenge: &str) -> String {
        let header = json!({ "typ": "dbsc+jwt", "alg": self.algorithm(), "jwk": jwk });
        self.token(
            &header.to_string(),
            &json!({ "jti": challenge }).to_string(),
        )
    }

    /// The proof of a refresh.
    pub fn refresh(&self, challenge: &str) -> String {
        let header = json!({ "typ": "dbsc+jwt", "alg": self.algorithm() });
        self.token(
            &header.to_string(),
            &json!({ "jti": challenge }).to_string(),
        )
    }

    /// A JWT of this header and this payload, whatever they are.
    pub fn token(&self, header: &str, payload: &str) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(payload.as_bytes())
        );
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }
}

fn from_hex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap()
    };
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// An RSA key pair with the exponent 65537, in hexadecimal digits. To make one takes long.
struct RsaParts {
    n: &'static str,
    d: &'static str,
    p: &'static str,
    q: &'static str,
}

const RSA_2048: RsaParts = RsaParts {
    n: "cf0c66d98ba2a3a0d15cdb04e26063ad7cc4507a8345f9952dadebc6c0554757b04d3a0d782578ea0d34ee\
        9814232f9d760f1015cd413f1548fc2d0e962fc3f06a2a33ff8a727b3aaac9059619b89f146156aa59cba8\
        3b31f360d114e70d3116413ed0d5fef5fac027e0abe6e3b85d22869f555889611000c000e451247179f6f1\
        c9f64e5c7981e17c7d392b334c842c9f753724c13eb1a5d5045e5e7347bad5f2ab49ec841b4490d5785d2d\
        9d75b474c14c730428eb3d7eb1011c0188e8d32fbb95f38dc54e3838f2a180946d6db92d097584eee9e933\
        dd40b8f77cede745ae64049404fc28e32f497a919da3fdcbe8b0f0dd90c321222f2aeb1469e91cbdbb",
    d: "57d7de26fc2c4399ee59a3febd80c1a9905ec5fa4489c2ab3d17260a4bfda2681cbf971ab1d7cc2618f655\
        28269b0b0f96502bb5e44083602777fe31cb1c76d82062c96ee8b14b810786841d3bca6d8bbb0486ffd3fd\
        0b285526c56e45dcfdef803d03635769cb3a0d712fdda4cdca8de469e34ecdf26554bc2164bcdc665ca4d9\
        9ed90294f77a57b89b9666b19cc31087ee0775eec3f76477ecd4d6a155261518dec5a465c4494bd75a3dca\
        de2c0c29526a7c27a2e9ed59ace32db3529b62736fc2be7af55b3c1ed3dec5f25bf6fab358e00cee63cce7\
        4952cafb239d904857fea7dca229add9f8f8e3b6c5fd5b2ffff6ea96f78a2bf7a86a8ae19c1c1b2021",
    p: "fc721cba45acddc352ac7321dc1ab99beb89c3d89ddc5b7ef1d26571e2363e545853443e9f03a678e8cca9\
        93d6f866e2f598faa4448453379a3654c882fa0cc96edbfef1bf258d41fd266aa1d40b0f5053d7de3f461a\
        f148eb486d3cd5906a75c930719b77831b3bdc62e81b29aa8d1b24f3bb96d427cf8e0cbc9f56c3fb6f11",
    q: "d1f6aa1a74b5c2472e4e4161389873b8eb3f9df1c9bef50f718f57ad9485e08c08ebbbf51b6a94bf486f96\
        7f15ab955a5891d03eae975c1dcd81834c5ae104ed03a621733f73bcb4b9583166d1d48c3671cd82c1a458\
        a1850a4c7561c22e6b8e6c4c43af9ba57fb49245e972169598c34cdc544f458d39a8113bd56aab4f780b",
};

const RSA_1024: RsaParts = RsaParts {
    n: "bc3ca612078db10adec9bfd9d343395f0c3b6213c7c26f34f306716ce35c8da43bed2d8accde3bfe657947\
        1321f5c07ba6529d421f39da8cf8fdd3325fef93ab3e0a2f1be9660745123c62825ded103c3f7168b8685e\
        f134bc22225d90327e37859ed400ab9345b8abb96ead687a96e17b58520521d4d2b3d395afea5cf4e707",
    d: "8110f4ad9810473c34d6107dc2a56d49069211058f0a7a45cbfcb6f8fa4c13b27084879d8c2b34e7919c3e\
        6797f9712957397e2a404ee2d3964633f16e664ed105177856daaa3896ca16f128fd6fb123bc3da3fd5583\
        52794ae1f023dd58a462c196f4b623c5803855f1140f5748bf0cd4d992e81fccdcf749452f971d863dc1",
    p: "f20fc66d0719fed109e1a7b5d2867ce557c79545df19a8caaaf02d27d871a1e9ad1b4b49b2979d577b0a64\
        1746c3d147b7f9c10728c61a8630c50351922d5fbd",
    q: "c71371da7ba764ebca79a83fff1189fa14e995db7d30746a150cfa82586201d6dbc917b3f63a4d4922f514\
        85058c2af9ada3862e5042ec1c76c3681e06e8bc13",
};
