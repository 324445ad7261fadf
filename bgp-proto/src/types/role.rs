//! BGP Roles of RFC 9234.

use std::fmt;

/// Our role towards an eBGP neighbour (RFC 9234 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We sell transit to the neighbour.
    Provider,
    /// We are a route server, the neighbour is its client.
    RouteServer,
    /// We are a client of the neighbour's route server.
    RouteServerClient,
    /// We buy transit from the neighbour.
    Customer,
    /// Neither sells transit to the other.
    Peer,
}

impl Role {
    /// The value of capability 9 (RFC 9234 §4.1).
    pub fn code(self) -> u8 {
        match self {
            Role::Provider => 0,
            Role::RouteServer => 1,
            Role::RouteServerClient => 2,
            Role::Customer => 3,
            Role::Peer => 4,
        }
    }

    /// The role that the neighbour must have (RFC 9234 §4.2, table 2).
    pub fn counterpart(self) -> Role {
        match self {
            Role::Provider => Role::Customer,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Customer => Role::Provider,
            Role::Peer => Role::Peer,
        }
    }

    /// Whether the neighbour is a provider, a peer or a route server: a route from it may be
    /// advertised to customers only, and a route with that restriction must not be advertised to it
    /// (RFC 9234 §5).
    pub fn neighbor_is_no_customer(self) -> bool {
        matches!(self, Role::Customer | Role::Peer | Role::RouteServerClient)
    }

    /// Whether the neighbour may advertise routes from us to its customers only (RFC 9234 §5).
    pub fn marks_advertised(self) -> bool {
        matches!(self, Role::Provider | Role::Peer | Role::RouteServer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Provider => "provider",
            Role::RouteServer => "rs",
            Role::RouteServerClient => "rs-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counterpart_of_a_counterpart_is_the_role_itself() {
        use Role::*;
        for role in [Provider, RouteServer, RouteServerClient, Customer, Peer] {
            assert_eq!(role.counterpart().counterpart(), role);
            // What one side marks, the other side would mark if it came unmarked.
            assert_eq!(role.marks_advertised(), role.counterpart().neighbor_is_no_customer());
        }
    }
}
