//! Dials an agent: port-forward, then the handshake of its protocol.
