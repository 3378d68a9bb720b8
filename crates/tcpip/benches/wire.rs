//! What a packet costs to read, to write and to sum up, beside smoltcp's code for the same.

#![allow(missing_docs, unreachable_pub, reason = "criterion's macros make public functions")]

mod cpu;

use cpu::CpuTime;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire as theirs;
use sockshim_tcpip::checksum::{copy_and_sum, finish, pseudo, sum};
use sockshim_tcpip::net::{Capabilities, Config, Medium, Network, RxMeta};
use sockshim_tcpip::seq::SeqNumber;
use sockshim_tcpip::time::Instant;
use sockshim_tcpip::wire::{eth, ip, ipv4, protocol, tcp};
use std::hint::black_box;
use std::net::Ipv4Addr;

const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An Ethernet frame with a segment as nearly all are: timestamps, and data or none.
fn frame(payload: usize) -> Vec<u8> {
    let header = tcp::Header {
        src_port: 40_000,
        dst_port: 80,
        seq: SeqNumber::new(1),
        ack: SeqNumber::new(2),
        flags: tcp::Flags::ACK,
        window: 500,
        urgent: 0,
        options: tcp::Options {
            timestamps: Some(tcp::Timestamps { value: 3, echo: 4 }),
            ..tcp::Options::default()
        },
    };
    let mut segment = vec![0; header.len() + payload];
    header.emit(&mut segment);
    let total = pseudo(THERE.into(), HERE.into(), protocol::TCP, segment.len() as u32) + sum(&segment);
    segment[16..18].copy_from_slice(&finish(total).to_be_bytes());
    let mut frame = vec![0; eth::Header::LEN + ipv4::Header::LEN];
    let outer = eth::Header {
        destination: eth::MacAddr(LINK_ADDRESS),
        source: eth::MacAddr([2, 0, 0, 0, 0, 2]),
        protocol: eth::EtherType::Ipv4,
    };
    outer.emit(&mut frame);
    ipv4::Header::new(THERE, HERE, protocol::TCP).emit(segment.len(), &mut frame[eth::Header::LEN..]);
    frame.extend(segment);
    frame
}

fn checksum(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("checksum");
    for len in [40, 1460, 65_536] {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut copy = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("sum", len), |b| b.iter(|| finish(sum(black_box(&bytes)))));
        group.bench_function(BenchmarkId::new("copy and sum", len), |b| {
            b.iter(|| finish(copy_and_sum(black_box(&mut copy), black_box(&bytes))));
        });
        group.bench_function(BenchmarkId::new("copy, then sum", len), |b| {
            b.iter(|| {
                black_box(&mut copy).copy_from_slice(black_box(&bytes));
                finish(sum(&copy))
            });
        });
        // smoltcp keeps its sum to itself: verifying a datagram shows it.
        if let Ok(field) = u16::try_from(len) {
            let mut datagram = bytes.clone();
            datagram[4..6].copy_from_slice(&field.to_be_bytes());
            let packet = theirs::UdpPacket::new_unchecked(&datagram);
            group.bench_function(BenchmarkId::new("smoltcp", len), |b| {
                b.iter(|| black_box(&packet).verify_checksum(&HERE.into(), &THERE.into()));
            });
        }
    }
    group.finish();
}

fn parse(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("read a segment");
    let bytes = frame(0);
    let ip_packet = &bytes[eth::Header::LEN..];
    let segment = &ip_packet[ipv4::Header::LEN..];
    group.bench_function("TCP header with timestamps", |b| b.iter(|| tcp::parse(black_box(segment))));
    group.bench_function("IPv4 header", |b| b.iter(|| ipv4::Header::parse(black_box(ip_packet))));
    for (name, payload, checksum_ok) in [
        ("from a frame to TCP, no data", 0, false),
        ("from a frame to TCP, 1448 bytes", 1448, false),
        ("from a frame to TCP, 1448 bytes, trusted", 1448, true),
    ] {
        let bytes = frame(payload);
        let mut network = Network::new(Config::default(), [1, 2, 3, 4]);
        let medium = Medium::Ethernet { address: LINK_ADDRESS };
        let link = network.add_interface(Capabilities { medium, mtu: 1500, tx_checksum: false, gso_max: 0 });
        network.add_address(link, HERE.into(), 24);
        let meta = RxMeta { checksum_ok, gso_size: 0 };
        let mut scratch = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                let up = network.receive(Instant::ZERO, link, black_box(&bytes), meta, &mut scratch);
                assert!(black_box(up).is_ok());
            });
        });
    }
    let caps = ChecksumCapabilities::ignored();
    group.bench_function("smoltcp, from a frame to TCP, no data, checksums ignored", |b| {
        b.iter(|| {
            let frame = theirs::EthernetFrame::new_checked(black_box(&bytes[..])).unwrap();
            let packet = theirs::Ipv4Packet::new_checked(frame.payload()).unwrap();
            let outer = theirs::Ipv4Repr::parse(&packet, &caps).unwrap();
            let segment = theirs::TcpPacket::new_checked(packet.payload()).unwrap();
            let (source, destination) = (outer.src_addr.into(), outer.dst_addr.into());
            black_box(theirs::TcpRepr::parse(&segment, &source, &destination, &caps).unwrap());
        });
    });
    group.finish();
}

fn emit(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("write a segment");
    let bytes = frame(0);
    let (header, _) = tcp::parse(&bytes[eth::Header::LEN + ipv4::Header::LEN..]).unwrap();
    let outer = ip::Header {
        src: HERE.into(),
        dst: THERE.into(),
        protocol: protocol::TCP,
        hop_limit: 64,
        traffic_class: 0,
        id: 7,
        dont_fragment: true,
        payload_len: header.len(),
    };
    let mut out = [0; 80];
    group.bench_function("IPv4 and TCP headers with timestamps", |b| {
        b.iter(|| {
            let at = black_box(&outer).emit(&mut out);
            black_box(&header).emit(&mut out[at..])
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = checksum, parse, emit
}
criterion_main!(benches);
