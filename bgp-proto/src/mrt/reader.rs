//! Reading fields from the front of a record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::MrtError;
use crate::types::Family;

/// What is left of a record.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MrtError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(MrtError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn octets(&mut self, len: usize) -> Result<&'a [u8], MrtError> {
        let (first, rest) = self.0.split_at_checked(len).ok_or(MrtError::Short)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MrtError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MrtError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MrtError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn address(&mut self, family: Family) -> Result<IpAddr, MrtError> {
        Ok(match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
        })
    }
}

/// Appends an address.
pub(super) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}
