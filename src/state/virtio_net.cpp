#include "state/virtio_net.h"

#include <algorithm>
#include <string>

#include "state/members.h"

namespace vmsight {
namespace {

constexpr std::uint32_t max_pairs = 0x8000;  // VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX

VirtioNet::Queue queue_from_btf(Members& members, const std::string& type) {
  return {members.size(type), members.offset(type, "stats.packets"),
          members.offset(type, "stats.bytes"), members.offset(type, "napi.dev")};
}

std::optional<VirtioNet::Offsets> from_btf(Kernel& kernel, const std::string& prefix) {
  Members members(kernel);
  VirtioNet::Offsets at;
  const std::string info = prefix + "virtnet_info";
  at.owner = members.offset(info, "dev");
  at.send_queues = members.offset(info, "sq");
  at.receive_queues = members.offset(info, "rq");
  at.pairs = members.offset(info, "max_queue_pairs");
  if (!members.check()) return std::nullopt;
  at.send = queue_from_btf(members, prefix + "send_queue");
  at.receive = queue_from_btf(members, prefix + "receive_queue");
  if (!members.check()) return std::nullopt;
  return at;
}

constexpr std::uint32_t align(std::uint32_t value, std::uint32_t to) {
  return (value + to - 1) / to * to;
}

}  // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
  rx_packets += other.rx_packets;
  rx_bytes += other.rx_bytes;
  tx_packets += other.tx_packets;
  tx_bytes += other.tx_bytes;
  return *this;
}

/// send_queue     vq, sg[], name[40], stats of 5 words, napi
/// receive_queue  vq, napi, xdp_prog, stats of 8 words, pages, average length, page_frag, sg[],
///                u32, name[40], xdp_rxq (on a cache line of its own)
std::optional<VirtioNet::Offsets> derive_virtio_net(Kernel& kernel) {
  Members members(kernel);
  const std::uint32_t word = 8, name = 40, cache_line = 64;
  const std::uint32_t napi = members.size("napi_struct");
  const std::uint32_t napi_device = members.offset("napi_struct", "dev");
  const std::uint32_t rxq = members.size("xdp_rxq_info");
  const std::uint32_t fragments = members.member("skb_shared_info", "frags").count;
  const std::uint32_t sg = (fragments + 2) * members.size("scatterlist");
  VirtioNet::Offsets at{2 * word, 3 * word, 4 * word, 5 * word + 4, {}, {}};
  const std::uint32_t send_stats = word + sg + name;
  const std::uint32_t send_napi = send_stats + 5 * word;
  at.send = {send_napi + napi, send_stats, send_stats + word, send_napi + napi_device};
  const std::uint32_t receive_stats = word + napi + word;
  const std::uint32_t tail =
      receive_stats + 8 * word + 2 * word + members.size("page_frag") + sg + 4 + name;
  at.receive = {align(tail, cache_line) + rxq, receive_stats, receive_stats + word,
                word + napi_device};
  if (!members.check()) return std::nullopt;
  return at;
}

const std::optional<VirtioNet::Offsets>& VirtioNet::offsets(Kernel& kernel) const {
  if (!asked_) {
    asked_ = true;
    offsets_ = from_btf(kernel, "virtio_net:");
    if (!offsets_) offsets_ = from_btf(kernel, "");  // a driver that is built in
    if (!offsets_) offsets_ = derive_virtio_net(kernel);
  }
  return offsets_;
}

std::optional<Traffic> VirtioNet::read(Context& context, GuestVirt device, GuestVirt private_part,
                                       std::size_t& reads_left) const {
  const std::optional<Offsets>& at = offsets(context.kernel);
  Reader& reader = context.reader;
  if (!at) return std::nullopt;
  if (reader.pointer(private_part + at->owner) != device) return std::nullopt;
  const std::uint32_t pairs = reader.u16(private_part + at->pairs);
  const GuestVirt send = reader.pointer(private_part + at->send_queues);
  const GuestVirt receive = reader.pointer(private_part + at->receive_queues);
  if (pairs > std::min<std::size_t>(max_pairs, reads_left)) return std::nullopt;
  reads_left -= pairs;
  Traffic sum;
  for (std::uint32_t i = 0; i < pairs && reader.ok(); ++i) {
    const GuestVirt sq = send + std::uint64_t{i} * at->send.size;
    const GuestVirt rq = receive + std::uint64_t{i} * at->receive.size;
    if (reader.pointer(sq + at->send.owner) != device) return std::nullopt;
    if (reader.pointer(rq + at->receive.owner) != device) return std::nullopt;
    const Unrecorded moving(reader);
    sum += {reader.u64(rq + at->receive.packets), reader.u64(rq + at->receive.bytes),
            reader.u64(sq + at->send.packets), reader.u64(sq + at->send.bytes)};
  }
  if (!reader.ok()) return std::nullopt;
  return sum;
}

}  // namespace vmsight
