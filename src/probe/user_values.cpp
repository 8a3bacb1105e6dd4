#include "probe/user_values.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>

#include "kernel/guest_text.h"
#include "probe/flags.h"

namespace vmsight {
namespace {

using What = ProbeFetch::What;

constexpr std::uint16_t max_shown = 256;
constexpr std::uint16_t max_string = 64;
constexpr std::uint16_t task_name_size = 16;  // TASK_COMM_LEN
constexpr std::size_t max_strings = 5;        // of an array of texts

constexpr UserRule rules[] = {
    {"write", 1, UserValue::given, 2},      {"pwrite64", 1, UserValue::given, 2},
    {"sendto", 1, UserValue::given, 2},     {"read", 1, UserValue::filled},
    {"pread64", 1, UserValue::filled},      {"recvfrom", 1, UserValue::filled},
    {"readlink", 1, UserValue::filled},     {"readlinkat", 2, UserValue::filled},
    {"getcwd", 0, UserValue::filled_line},  {"execve", 1, UserValue::strings},
    {"execveat", 2, UserValue::strings},    {"connect", 1, UserValue::socket_address},
    {"bind", 1, UserValue::socket_address}, {"sendto", 4, UserValue::socket_address},
    {"nanosleep", 0, UserValue::time},      {"clock_nanosleep", 2, UserValue::time},
    {"ppoll", 2, UserValue::time},          {"pselect6", 4, UserValue::time},
    {"prctl", 1, UserValue::task_name},
};

template <typename Structure>
bool load(std::string_view bytes, Structure& into) {
  if (bytes.size() < sizeof into) return false;
  std::memcpy(&into, bytes.data(), sizeof into);
  return true;
}

/// The bytes up to the first NUL were fetched, at most so many as could be.
std::string buffer_text(const Fetched& fetched, std::uint64_t length, bool ended) {
  if (length == 0) return "\"\"";
  const std::string_view bytes =
      std::string_view(fetched.bytes)
          .substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(length, max_shown)));
  const bool whole = ended ? bytes.size() + 1 >= length : bytes.size() >= length;
  return quote_bytes(bytes) + (whole ? "" : "...");
}

std::string strings_text(std::span<const Fetched* const> fetched) {
  std::string text = "[";
  for (const Fetched* one : fetched) {
    if (one->ok && one->value == 0) return text + "]";
    if (text.size() > 1) text += ", ";
    if (!one->ok) return text + "...]";
    text += quote_bytes(one->bytes) + (one->cut ? "..." : "");
  }
  return text + ", ...]";
}

std::string internet_text(int family, const void* address, std::uint16_t port) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (::inet_ntop(family, address, text.data(), text.size()) == nullptr) return "";
  const bool is_v4 = family == AF_INET;
  return fmt::format("{{{}{}{}:{}}}", is_v4 ? "AF_INET, " : "AF_INET6, [", text.data(),
                     is_v4 ? "" : "]", ntohs(port));
}

/// `fetched`: the first bytes; all that a longer address has; the path of a Unix socket.
std::string address_text(std::span<const Fetched* const> fetched) {
  const std::string& begin = fetched[0]->bytes;
  sa_family_t family = 0;
  if (!load(begin, family)) return "";
  sockaddr_in in4{};
  sockaddr_in6 in6{};
  if (family == AF_INET && load(begin, in4))
    return internet_text(AF_INET, &in4.sin_addr, in4.sin_port);
  if (family == AF_INET6 && fetched[1]->ok && load(fetched[1]->bytes, in6)) {
    return internet_text(AF_INET6, &in6.sin6_addr, in6.sin6_port);
  }
  if (family == AF_UNIX && fetched[2]->ok)
    return fmt::format("{{AF_UNIX, {}}}", quote_bytes(fetched[2]->bytes));
  const std::string name = flag_names(FlagKind::family, family);
  return fmt::format("{{{}}}", name.empty() ? fmt::to_string(family) : name);
}

std::string time_text(const Fetched& fetched) {
  std::timespec time{};
  if (!load(fetched.bytes, time)) return "";
  return fmt::format("{{tv_sec={}, tv_nsec={}}}", time.tv_sec, time.tv_nsec);
}

}  // namespace

const UserRule* user_rule(std::string_view system_call, std::size_t argument) {
  const auto at = std::find_if(std::begin(rules), std::end(rules), [&](const UserRule& rule) {
    return rule.call == system_call && rule.argument == argument;
  });
  return at == std::end(rules) ? nullptr : at;
}

std::vector<ProbeFetch> user_fetches(UserValue kind, const ProbeFetch& pointer) {
  ProbeFetch fetch = pointer;
  std::vector<ProbeFetch> all;
  const auto add = [&](What what, std::size_t size, std::int32_t offset = 0) {
    fetch.what = what;
    fetch.size = static_cast<std::uint16_t>(size);
    fetch.offset = offset;
    all.push_back(fetch);
  };
  if (is_filled(kind)) fetch.from_entry = true;
  if (kind == UserValue::given || is_filled(kind)) add(What::string, max_shown);
  if (kind == UserValue::task_name) add(What::string, task_name_size);
  if (kind == UserValue::time) add(What::bytes, sizeof(std::timespec));
  if (kind == UserValue::socket_address) {
    add(What::bytes, sizeof(sockaddr_in));
    add(What::bytes, sizeof(sockaddr_in6));
    add(What::string, sizeof(sockaddr_un::sun_path), offsetof(sockaddr_un, sun_path));
  }
  if (kind == UserValue::strings && fetch.step_count < ProbeFetch::max_steps) {
    ++fetch.step_count;
    for (std::size_t i = 0; i < max_strings; ++i) {
      fetch.steps[fetch.step_count - 1u] = static_cast<std::int32_t>(i * sizeof(std::uint64_t));
      add(What::string, max_string);
    }
  }
  return all;
}

std::string user_text(UserValue kind, std::span<const Fetched* const> fetched,
                      std::uint64_t length) {
  if (fetched.empty() || !fetched[0]->ok || fetched[0]->value == 0) return "";
  switch (kind) {
    case UserValue::given:
    case UserValue::filled:
      return buffer_text(*fetched[0], length, false);
    case UserValue::filled_line:
      return buffer_text(*fetched[0], length, true);
    case UserValue::strings:
      return strings_text(fetched);
    case UserValue::socket_address:
      return fetched.size() < 3 ? "" : address_text(fetched);
    case UserValue::time:
      return time_text(*fetched[0]);
    case UserValue::task_name:
    case UserValue::none:
      break;
  }
  return "";
}

}  // namespace vmsight
