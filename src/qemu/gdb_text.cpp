#include "qemu/gdb_text.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>

namespace vmsight {
namespace {

constexpr std::size_t max_packet = 1u << 20;  // far above any PacketSize of QEMU's

std::optional<unsigned> digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

std::optional<unsigned> byte_at(std::string_view text, std::size_t at) {
  const auto high = digit(text[at]), low = digit(text[at + 1]);
  if (!high || !low) return std::nullopt;
  return *high << 4 | *low;
}

unsigned checksum(std::string_view payload) {
  unsigned sum = 0;
  for (const char c : payload) sum += static_cast<unsigned char>(c);
  return sum & 0xff;
}

Error malformed_packet(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read gdbstub: {}", what)};
}

/// "}c" is c ^ 0x20; "c*n" is c and n - 29 more of it.
Result<std::string> resolve(std::string_view raw) {
  std::string payload;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '}' && i + 1 < raw.size()) {
      payload += static_cast<char>(raw[++i] ^ 0x20);
    } else if (raw[i] == '*' && i + 1 < raw.size() && !payload.empty()) {
      const int repeats = raw[++i] - 29;
      if (repeats < 0 || payload.size() + static_cast<std::size_t>(repeats) > max_packet) {
        return malformed_packet("a repeat out of bounds");
      }
      payload.append(static_cast<std::size_t>(repeats), payload.back());
    } else {
      payload += raw[i];
    }
  }
  return payload;
}

}  // namespace

std::string gdb_packet(std::string_view payload) {
  return fmt::format("${}#{:02x}", payload, checksum(payload));
}

Result<std::optional<std::string>> GdbPackets::next() {
  while (true) {
    const auto start = std::min(waiting_.find_first_of("$%"), waiting_.size());
    waiting_.erase(0, start);  // '+' and noise
    const auto end = waiting_.find('#');
    if (end == std::string::npos || waiting_.size() < end + 3) {
      if (waiting_.size() > max_packet) return malformed_packet("an endless packet");
      return std::optional<std::string>();
    }
    const std::string_view raw = std::string_view(waiting_).substr(1, end - 1);
    const auto sum = byte_at(waiting_, end + 1);
    if (!sum || *sum != checksum(raw)) return malformed_packet("a wrong checksum");
    const bool notification = waiting_.front() == '%';
    auto payload = resolve(raw);
    waiting_.erase(0, end + 3);
    if (notification) continue;
    if (!payload) return std::move(payload).error();
    return std::optional<std::string>(*std::move(payload));
  }
}

std::optional<std::uint64_t> parse_packet_size(std::string_view supported) {
  constexpr std::string_view key = "PacketSize=";
  auto at = supported.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  supported.remove_prefix(at + key.size());
  std::uint64_t size = 0;
  const auto parsed =
      std::from_chars(supported.data(), supported.data() + supported.size(), size, 16);
  if (parsed.ec != std::errc()) return std::nullopt;
  return size;
}

Result<void> parse_memory(std::string_view answer, std::span<std::byte> into) {
  if (answer.size() == 3 && answer.front() == 'E') {
    return Error{.code = ErrorCode::fault,
                 .message = fmt::format("read gdbstub: refused with {}", answer)};
  }
  if (answer.size() != 2 * into.size()) return malformed_packet("not as much memory as asked for");
  for (std::size_t i = 0; i < into.size(); ++i) {
    const auto value = byte_at(answer, 2 * i);
    if (!value) return malformed_packet("memory that is not hexadecimal");
    into[i] = static_cast<std::byte>(*value);
  }
  return {};
}

bool is_stop_reply(std::string_view packet) {
  constexpr std::string_view kinds = "TSWX";
  return packet.size() >= 3 && kinds.find(packet.front()) != std::string_view::npos;
}

std::optional<GdbStop> parse_stop_reply(std::string_view packet) {
  if (!is_stop_reply(packet)) return std::nullopt;
  const auto signal = byte_at(packet, 1);
  if (!signal) return std::nullopt;
  GdbStop stop{.signal = *signal, .vcpu = {}};
  stop.ended = packet.front() == 'W' || packet.front() == 'X';
  constexpr std::string_view key = "thread:";
  const auto at = packet.find(key);
  if (at == std::string_view::npos) return stop;
  std::string_view id = packet.substr(at + key.size());
  id = id.substr(0, id.find(';'));
  if (id.starts_with('p')) id.remove_prefix(std::min(id.find('.'), id.size() - 1) + 1);
  unsigned number = 0;
  const auto parsed = std::from_chars(id.data(), id.data() + id.size(), number, 16);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == id.data() + id.size();
  if (whole && number > 0) stop.vcpu = number - 1;
  return stop;
}

}  // namespace vmsight
