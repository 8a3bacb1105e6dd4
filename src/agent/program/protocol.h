// What vmsight and its agent in the guest say to each other, on the virtio-serial port
// org.vmsight.agent.0. Everything is made of little-endian words of 64 bits.
//
//   host                                   guest
//   Hello    zeros, mark, version, nonce
//                                          Welcome  mark, nonce, version, error, n; n ranges
//   Request  magic, id, n; n runs
//   Request  ...
//                                          Answer   magic, id, n, size; n times: got, its bytes
//
// Requests are answered in order; the host sends many before it reads. The agent answers a run with
// the bytes from its start on that there are: what the guest's kernel does not show as RAM is absent.
//
// A client may be killed at any moment, and the next one finds what it left in the port, in both
// directions. So the stream can be found again at any place:
//   - The highest byte of each word of a request is zero, that of none in a mark is: 16 bytes that
//     look like a mark are one. Whatever came before it is of a client that is gone.
//   - A hello begins with as many zeros as a hello is long, which end one that was cut short.
//   - The host drops all that comes before a welcome with its own nonce.
// What is no request is dropped too, up to the next mark.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace vmsight::agent {

inline constexpr char port_name[] = "org.vmsight.agent.0";
inline constexpr std::uint64_t version = 1;

using Mark = std::array<std::uint8_t, 16>;
inline constexpr Mark hello_mark{0xa9, 'v', 'm', 's', 'i', 'g', 'h',  't',
                                 0xd6, 'h', 'e', 'l', 'l', 'o', 0x8e, 0xf1};
inline constexpr Mark welcome_mark{0xa9, 'v', 'm', 's', 'i', 'g', 'h',  't',
                                   0xd6, 'w', 'e', 'l', 'c', 'm', 0x8e, 0xf1};
using Nonce = std::array<std::uint64_t, 2>;  // random

struct Hello {
  std::array<std::uint64_t, 5> zeros{};
  Mark mark = hello_mark;
  std::uint64_t version = agent::version;
  Nonce nonce{};
};

struct Welcome {
  Mark mark = welcome_mark;
  Nonce nonce{};
  std::uint64_t version = agent::version;
  std::uint64_t error = 0;   // errno, if the guest's memory cannot be read
  std::uint64_t ranges = 0;  // that follow, of at most max_ranges
};

/// RAM, by guest-physical address, as the guest's kernel shows it. Ascending.
struct Range {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
};

inline constexpr std::uint64_t request_magic = 0x0000'5145'524d'5356;  // "VSMREQ"
inline constexpr std::uint64_t answer_magic = 0x0000'534e'414d'5356;   // "VSMANS"

struct Request {
  std::uint64_t magic = request_magic;
  std::uint64_t id = 0;    // below max_id
  std::uint64_t runs = 0;  // that follow, of at most max_runs
};

struct Run {
  std::uint64_t start = 0;  // guest-physical, below max_address
  std::uint64_t size = 0;   // bytes; of all runs together at most max_bytes
};

struct Answer {
  std::uint64_t magic = answer_magic;
  std::uint64_t id = 0;  // of its request
  std::uint64_t runs = 0;
  std::uint64_t size = 0;  // bytes that follow
};

inline constexpr std::uint64_t max_id = 1ull << 48;
inline constexpr std::uint64_t max_address = 1ull << 52;
inline constexpr std::uint64_t max_ranges = 1024;
inline constexpr std::uint64_t max_runs = 1024;
inline constexpr std::uint64_t max_bytes = 1u << 20;

inline constexpr std::size_t max_request = sizeof(Request) + max_runs * sizeof(Run);
inline constexpr std::size_t max_answer =
    sizeof(Answer) + max_runs * sizeof(std::uint64_t) + max_bytes;

static_assert(sizeof(Hello::zeros) >= sizeof(Hello) - sizeof(Hello::zeros));

}  // namespace vmsight::agent
