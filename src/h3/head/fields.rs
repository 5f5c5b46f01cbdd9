//! The fields of a head, one after another: which there may be, and in what order
//! (RFC 9114 §4.2, §4.3).

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Bounds, HeadError, Request, malformed};
use crate::h3::error::{Code, Fault};
use crate::h3::qpack::{self, DecodeError};

/// What has been read of a head.
#[derive(Default)]
pub(super) struct Fields {
    method: Option<Method>,
    pub(super) status: Option<StatusCode>,
    authority: Option<String>,
    scheme: Option<String>,
    path: Option<String>,
    protocol: Option<String>,
    pub(super) headers: HeaderMap,
}

impl Fields {
    pub(super) fn read(
        &mut self,
        section: &[u8],
        bounds: Bounds,
        pseudo: fn(&mut Self, &[u8], &str) -> Result<(), &'static str>,
    ) -> Result<(), HeadError> {
        let read = qpack::decode(section, bounds.size, bounds.count, |name, value| {
            if !name.starts_with(b":") {
                return self.header(name, value);
            }
            if !self.headers.is_empty() {
                return Err("a pseudo-header follows a header");
            }
            let text = str::from_utf8(value).ok();
            let text = text.filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
            pseudo(
                self,
                name,
                text.ok_or("a pseudo-header is no visible ASCII")?,
            )
        });
        read.map_err(|error| match error {
            DecodeError::Malformed => {
                let why = "a field section cannot be decoded";
                HeadError::Section(Fault::new(Code::QPACK_DECOMPRESSION_FAILED, why))
            }
            DecodeError::TooLarge => HeadError::TooLarge,
            DecodeError::Field(why) => malformed(why),
        })
    }

    pub(super) fn of_request(&mut self, name: &[u8], value: &str) -> Result<(), &'static str> {
        match name {
            b":method" => {
                let method = Method::from_bytes(value.as_bytes());
                let method = method.map_err(|_odd| "a method is no token")?;
                once(self.method.replace(method).is_some())
            }
            b":authority" => once(self.authority.replace(value.to_owned()).is_some()),
            b":scheme" => once(self.scheme.replace(value.to_owned()).is_some()),
            b":path" => once(self.path.replace(value.to_owned()).is_some()),
            b":protocol" => once(self.protocol.replace(value.to_owned()).is_some()),
            _ => Err("a request has a pseudo-header that there is not"),
        }
    }

    pub(super) fn of_response(&mut self, name: &[u8], value: &str) -> Result<(), &'static str> {
        match name {
            b":status" => {
                let status = StatusCode::from_bytes(value.as_bytes());
                let status = status.map_err(|_odd| "a status is no number of three digits")?;
                once(self.status.replace(status).is_some())
            }
            _ => Err("a response has a pseudo-header that there is not"),
        }
    }

    fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // In lower case only (§4.2).
        let name = HeaderName::from_lowercase(name).map_err(|_odd| "a header's name is odd")?;
        let value = HeaderValue::from_bytes(value).map_err(|_odd| "a header's value is odd")?;
        let hop_by_hop = [
            header::CONNECTION.as_str(),
            "keep-alive",
            "proxy-connection",
            header::TRANSFER_ENCODING.as_str(),
            header::UPGRADE.as_str(),
        ];
        if hop_by_hop.contains(&name.as_str()) || name == header::TE && value != "trailers" {
            return Err("a header of HTTP/1.1's connections was sent");
        }
        let kept = self.headers.try_append(name, value);
        kept.map(|_more| ()).map_err(|_full| "too many headers")
    }

    /// §4.3.1, §4.4 and RFC 9220 §3, but for a plain CONNECT that has a scheme and a path: some
    /// send those, and nobody is misled.
    pub(super) fn into_request(mut self) -> Result<Request, &'static str> {
        let request = Request {
            method: self.method.ok_or("a request has no method")?,
            authority: self.authority,
            scheme: self.scheme,
            path: self.path,
            protocol: self.protocol,
            headers: mem::take(&mut self.headers),
        };
        let connect = request.method == Method::CONNECT;
        if request.protocol.is_some() && !connect {
            return Err("a request that is no CONNECT has a protocol");
        }
        if !request.is_plain_connect() {
            let empty = request.path.as_deref().is_none_or(str::is_empty);
            if request.scheme.is_none() || empty {
                return Err("a request has no scheme or no path");
            }
        }
        let host = request.headers.get(header::HOST);
        match (&request.authority, host) {
            (None, _) if connect => return Err("a CONNECT has no authority"),
            (Some(authority), _) if authority.is_empty() => return Err("an authority is empty"),
            (Some(authority), Some(host)) if host != authority.as_str() => {
                return Err("the authority and the host differ");
            }
            (None, None) => return Err("a request has neither authority nor host"),
            _ => {}
        }
        // A CONNECT has no content whose length could be told (RFC 9110 §9.3.6).
        if connect && request.headers.contains_key(header::CONTENT_LENGTH) {
            return Err("a CONNECT has a content length");
        }
        Ok(request)
    }
}

fn once(again: bool) -> Result<(), &'static str> {
    match again {
        true => Err("a pseudo-header was sent twice"),
        false => Ok(()),
    }
}
