//! The workstation's side of the device: raw packets, and a TCP of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use podway::net::packet::{FULL_HOPS, FlowKey, View, datagram};
use podway::net::tun::PacketDevice;
use podway::net::tun::pair::PairDevice;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{
    HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use tokio::time::Instant;

/// Longest wait for anything in a test.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn recv(device: &PairDevice) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    tokio::time::timeout(PATIENCE, async {
        loop {
            device.readable().await.unwrap();
            if let Ok(length) = device.try_recv(&mut buffer) {
                buffer.truncate(length);
                return buffer;
            }
        }
    })
    .await
    .expect("no packet came")
}

pub(crate) fn nothing(device: &PairDevice) -> bool {
    device.try_recv(&mut vec![0; 65_536]).is_err()
}

/// A bare segment.
pub(crate) fn segment(from: SocketAddr, to: SocketAddr, control: TcpControl, seq: i32, ack: Option<i32>) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 65_000,
        window_scale: (control == TcpControl::Syn).then_some(0),
        max_seg_size: (control == TcpControl::Syn).then_some(1400),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, repr.buffer_len(), FULL_HOPS);
    let mut bytes = vec![0; ip.buffer_len()];
    ip.emit(&mut bytes, &ChecksumCapabilities::default());
    let start = ip.header_len();
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[start..]);
    repr.emit(&mut tcp, &source, &destination, &ChecksumCapabilities::default());
    bytes
}

pub(crate) fn syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    segment(from, to, TcpControl::Syn, 1000, None)
}

/// A datagram as programs here send it.
pub(crate) fn question(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = datagram(from, to, payload).unwrap();
    made_here(&mut packet);
    packet
}

/// With the hop limit that the device's routes give.
fn made_here(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let mut ip = Ipv4Packet::new_unchecked(packet);
        ip.set_hop_limit(FULL_HOPS);
        ip.fill_checksum();
    } else {
        Ipv6Packet::new_unchecked(packet).set_hop_limit(FULL_HOPS);
    }
}

/// An echo request; identifier 7.
pub(crate) fn echo_request(from: IpAddr, to: IpAddr, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = Icmpv4Repr::EchoRequest { ident: 7, seq_no: sequence, data: payload };
            let ip = IpRepr::new(from.into(), to.into(), IpProtocol::Icmp, icmp.buffer_len(), FULL_HOPS);
            let mut bytes = vec![0; ip.buffer_len()];
            ip.emit(&mut bytes, &checksums);
            icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[20..]), &checksums);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = Icmpv6Repr::EchoRequest { ident: 7, seq_no: sequence, data: payload };
            let ip = IpRepr::new(from.into(), to.into(), IpProtocol::Icmpv6, icmp.buffer_len(), FULL_HOPS);
            let mut bytes = vec![0; ip.buffer_len()];
            ip.emit(&mut bytes, &checksums);
            icmp.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(&mut bytes[40..]), &checksums);
            bytes
        }
        _ => panic!("two families"),
    }
}

/// An echo reply, checked: identifier, sequence number, payload.
pub(crate) fn echo_reply(packet: &[u8]) -> (u16, u16, Vec<u8>) {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        match Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap() {
            Icmpv4Repr::EchoReply { ident, seq_no, data } => (ident, seq_no, data.to_vec()),
            other => panic!("{other:?}"),
        }
    } else {
        let ip = Ipv6Packet::new_checked(packet).unwrap();
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        match Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &ChecksumCapabilities::default()).unwrap() {
            Icmpv6Repr::EchoReply { ident, seq_no, data } => (ident, seq_no, data.to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

/// What came, in short words: `rst`, `syn-ack`, `icmp 3/1`.
pub(crate) fn describe(packet: &[u8]) -> String {
    let (protocol, payload) = match packet[0] >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum());
            (ip.next_header(), ip.payload())
        }
        _ => {
            let ip = Ipv6Packet::new_checked(packet).unwrap();
            (ip.next_header(), ip.payload())
        }
    };
    match protocol {
        IpProtocol::Icmp | IpProtocol::Icmpv6 => {
            let quoted = View::parse(&payload[8..]).ok().and_then(|v| v.key()).map(|key| key.local.to_string());
            format!("icmp {}/{} {}", payload[0], payload[1], quoted.unwrap_or_default())
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).unwrap();
            let key: FlowKey = View::parse(packet).unwrap().key().unwrap();
            assert!(tcp.verify_checksum(&key.local.ip().into(), &key.remote.ip().into()));
            match (tcp.syn(), tcp.ack(), tcp.rst(), tcp.fin()) {
                (true, true, false, false) => "syn-ack".into(),
                (_, _, true, _) => format!("rst {}", tcp.ack_number().0),
                (_, _, _, true) => "fin".into(),
                _ => "tcp".into(),
            }
        }
        other => format!("{other:?}"),
    }
}

struct Port(PairDevice);

pub(crate) struct In(Vec<u8>);
pub(crate) struct Out<'a>(&'a PairDevice);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; length];
        let result = f(&mut bytes);
        made_here(&mut bytes);
        let _ = self.0.try_send(&bytes);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(In, Out<'_>)> {
        let mut buffer = vec![0; 65_536];
        let length = self.0.try_recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some((In(buffer), Out(&self.0)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Out<'_>> {
        Some(Out(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.0.mtu();
        capabilities
    }
}

/// One connection of a program, on its own stack.
pub(crate) struct Peer {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    epoch: Instant,
}

impl Peer {
    pub(crate) fn connect(device: PairDevice, from: SocketAddr, to: SocketAddr) -> Self {
        let mut port = Port(device);
        let epoch = Instant::now();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut port, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|a| {
            a.push(IpCidr::new(from.ip().into(), if from.is_ipv4() { 32 } else { 128 })).unwrap();
        });
        let buffer = || SocketBuffer::new(vec![0; 128 * 1024]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(Socket::new(buffer(), buffer()));
        sockets.get_mut::<Socket<'_>>(handle).set_ack_delay(None);
        sockets.get_mut::<Socket<'_>>(handle).connect(interface.context(), to, from).unwrap();
        let mut peer = Self { port, interface, sockets, handle, epoch };
        peer.step();
        peer
    }

    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn step(&mut self) -> Duration {
        let now = smoltcp::time::Instant::from_micros(i64::try_from(self.epoch.elapsed().as_micros()).unwrap());
        self.interface.poll(now, &mut self.port, &mut self.sockets);
        let delay = self.interface.poll_delay(now, &self.sockets);
        delay.map_or(Duration::from_millis(50), |d| {
            Duration::from_micros(d.total_micros()).max(Duration::from_millis(1))
        })
    }

    /// Runs the stack until `done` gives something.
    pub(crate) async fn until<T>(&mut self, mut done: impl FnMut(&mut Socket<'static>) -> Option<T>) -> T {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let delay = self.step();
                if let Some(value) = done(self.sockets.get_mut(self.handle)) {
                    self.step();
                    return value;
                }
                let _ = tokio::time::timeout(delay, self.port.0.readable()).await;
            }
        })
        .await
        .expect("the condition never came true")
    }

    pub(crate) async fn state_is(&mut self, state: State) {
        self.until(|s| (s.state() == state).then_some(())).await;
    }

    pub(crate) async fn write(&mut self, mut data: &[u8]) {
        self.until(|s| {
            data = &data[s.send_slice(data).unwrap()..];
            data.is_empty().then_some(())
        })
        .await;
    }

    pub(crate) async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until(|s| {
            while s.can_recv() && all.len() < length {
                let left = length - all.len();
                s.recv(|b| {
                    let n = b.len().min(left);
                    all.extend_from_slice(&b[..n]);
                    (n, ())
                })
                .unwrap();
            }
            (all.len() == length).then_some(())
        })
        .await;
        all
    }

    pub(crate) fn close(&mut self) {
        self.socket().close();
        self.step();
    }
}

impl Peer {
    /// Connects anew from the same port.
    pub(crate) fn again(&mut self, from: SocketAddr, to: SocketAddr) {
        let context = self.interface.context();
        self.sockets.get_mut::<Socket<'_>>(self.handle).connect(context, to, from).unwrap();
        self.step();
    }
}
