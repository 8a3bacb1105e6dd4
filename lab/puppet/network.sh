# Network devices of many kinds, and addresses of every sort, in this network namespace and in one
# called "other". Needs Debian's ip; modules are loaded by the puppet.
set -e
ip() { /usr/bin/ip "$@"; }  # not the one of busybox
ip netns add other
ip link add br0 type bridge
ip link add port0 type dummy
ip link add spare0 type dummy
ip link set port0 master br0
ip link set port0 alias "a spare"
ip link set spare0 group 7 txqueuelen 77
ip link property add dev spare0 altname spare-one altname a-second-name-that-is-long
ip link add link eth0 name eth0.5 type vlan id 5
ip link add link spare0 name macvlan0 type macvlan
ip link add veth0 type veth peer name veth1
ip link add veth2 type veth peer name veth3
ip link set veth1 netns other
ip link add tunnel0 type ipip local 10.0.2.15 remote 10.0.2.2 dev eth0
ip link add sit1 type sit local 10.0.2.15
ip tuntap add dev tun0 mode tun
ip tuntap add dev tap0 mode tap
for device in br0 port0 eth0.5 macvlan0 veth0 veth2 veth3 tunnel0 sit1 tun0; do
  ip link set $device up
done
ip -n other link set lo up
ip -n other link set veth1 up
ip addr add 10.8.0.1 peer 10.8.0.2/32 dev tun0
ip addr add 10.9.0.1/24 brd + dev br0 label br0:first
ip addr add 10.9.0.2/24 dev br0
ip addr add 10.9.1.1/24 dev br0 scope link valid_lft 3000 preferred_lft 2000
ip addr add 10.9.2.1/24 dev eth0.5 noprefixroute
ip addr add 10.9.3.1/24 dev tunnel0
ip addr add 2001:db8::1/64 dev br0 nodad
ip addr add 2001:db8::2/64 dev br0 nodad valid_lft 4000 preferred_lft 0
ip addr add 2001:db8::3 peer 2001:db8::4/128 dev spare0 nodad
ip addr add 2001:db8:1::1/64 dev spare0
ip addr add fec0::1/64 dev br0 nodad
ip -n other addr add 2001:db8:2::1/64 dev veth1 nodad
ip addr add 2001:db8:2::1/64 dev veth0
