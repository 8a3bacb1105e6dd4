// Counters of virtio network devices, which their driver keeps in its queues.
//
//   net_device | private part = virtnet_info { ... sq, rq, max_queue_pairs ... }
//                                             |    |
//            send_queue[max_queue_pairs]  <---+    +--->  receive_queue[max_queue_pairs]
//                 stats.packets, stats.bytes               stats.packets, stats.bytes
#pragma once

#include <cstdint>
#include <optional>

#include "state/context.h"

namespace vmsight {

struct Traffic {
  std::uint64_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0;
  Traffic& operator+=(const Traffic& other);
};

class VirtioNet {
 public:
  /// Sums over all queues. nullopt if they cannot be found; the reader may then have a fault.
  /// The layout is that of the module's BTF. A kernel without BTF of modules gets one derived
  /// from the generic structures within; either must agree with the device at every queue.
  /// `reads_left` goes down with each queue: forged devices may not have many in all.
  std::optional<Traffic> read(Context& context, GuestVirt device, GuestVirt private_part,
                              std::size_t& reads_left) const;

  struct Queue {  // send_queue or receive_queue
    std::uint32_t size = 0, packets = 0, bytes = 0;
    std::uint32_t owner = 0;  // of napi.dev, which points back to the net_device
  };
  struct Offsets {
    std::uint32_t owner = 0, send_queues = 0, receive_queues = 0, pairs = 0;  // of virtnet_info
    Queue send, receive;
  };

 private:
  const std::optional<Offsets>& offsets(Kernel& kernel) const;

  // Learnt when the first such device is met: its module may be loaded after we attached.
  mutable std::optional<Offsets> offsets_;
  mutable bool asked_ = false;
};

/// The layout of Linux 5.10, whose modules have no BTF, from the sizes of what the structures
/// of drivers/net/virtio_net.c hold. nullopt if the kernel lacks one of those.
std::optional<VirtioNet::Offsets> derive_virtio_net(Kernel& kernel);

}  // namespace vmsight
