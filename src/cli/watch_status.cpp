#include "cli/watch_status.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/sealed_file.h"
#include "base/socket_fd.h"
#include "base/text.h"
#include "host/process.h"
#include "host/unix_socket.h"
#include "render/escape.h"
#include "render/format.h"
#include "render/json.h"
#include "render/table.h"
#include "undo/journal.h"

namespace vmsight {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr std::string_view socket_prefix = "watch-", socket_suffix = ".sock";
constexpr std::size_t longest_document = 64u << 20;  // bytes
constexpr auto patience = 5s;  // a watch that is reading a large guest answers when it is done

bool is_our_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == ::geteuid() || peer.uid == 0);
}

/// "watch-12.sock": 12.
std::optional<pid_t> pid_of_socket(std::string_view name) {
  if (!name.starts_with(socket_prefix) || !name.ends_with(socket_suffix)) return std::nullopt;
  name.remove_prefix(socket_prefix.size());
  name.remove_suffix(socket_suffix.size());
  return parse_whole<pid_t>(name);
}

/// Of those that run; what others left is removed.
std::vector<std::string> sockets_in(const std::string& directory) {
  std::vector<std::string> paths;
  std::error_code failed;
  for (std::filesystem::directory_iterator it(directory, failed), end; !failed && it != end;
       it.increment(failed)) {
    const auto pid = pid_of_socket(it->path().filename().string());
    if (!pid) continue;
    if (identify(*pid)) {
      paths.push_back(it->path().string());
    } else {
      ::unlink(it->path().c_str());
    }
  }
  std::ranges::sort(paths);
  return paths;
}

// ---- asking ------------------------------------------------------------------------------------

Error no_answer(const std::string& path, std::string_view why) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("ask {}: {}", path, why)};
}

Result<json> ask(const std::string& path) {
  VMSIGHT_TRY(const UniqueFd socket,
              connect_unix(path, std::chrono::steady_clock::now() + patience, path, ""));
  if (!is_our_user(socket.get())) return no_answer(path, "it is another user's");
  pollfd event{.fd = socket.get(), .events = POLLIN, .revents = 0};
  constexpr int patience_ms = std::chrono::milliseconds(patience).count();
  std::byte one{};
  UniqueFd file;
  if (::poll(&event, 1, patience_ms) <= 0 || receive_with_fd(socket.get(), {&one, 1}, file) != 1 ||
      !file) {
    return no_answer(path, "it does not answer in time");
  }
  struct stat about {};
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  if (::fstat(file.get(), &about) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
      static_cast<std::uint64_t>(about.st_size) > longest_document) {
    return no_answer(path, "what it sent is no document");
  }
  std::string text(static_cast<std::size_t>(about.st_size), '\0');
  if (::pread(file.get(), text.data(), text.size(), 0) != about.st_size)
    return no_answer(path, "its document cannot be read");
  json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return no_answer(path, "what it sent is no document");
  return document;
}

// ---- showing -----------------------------------------------------------------------------------

std::string text_in(const json& object, const char* name) {
  const json value = object.value(name, json());
  return value.is_string() ? value.get<std::string>() : "";
}
std::uint64_t number_in(const json& object, const char* name) {
  const json value = object.value(name, json());
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

bool is_of(const json& vm, const std::string& wanted) {
  return wanted.empty() || text_in(vm, "vm") == wanted ||
         std::to_string(number_in(vm, "pid")) == wanted;
}

std::string sites_in(const json& rule) {
  std::string all;
  for (const json& site : rule.value("sites", json::array())) {
    all += all.empty() ? "" : " ";
    all += site.is_string() ? site.get<std::string>() : "";
  }
  if (!all.empty()) return all;
  const std::uint64_t every_ns = number_in(rule, "every_ns");
  return every_ns == 0 ? "" : "every " + duration(every_ns);
}

void print_vm(Session& session, const json& vm) {
  const std::uint64_t readings = number_in(vm, "readings");
  const std::string engine = text_in(vm, "engine");
  session.out.print(
      "\n{} (pid {}): {}{}; {} readings of the state{}\n", for_terminal(text_in(vm, "vm")),
      number_in(vm, "pid"), engine.empty() ? "no probes" : "probes by engine " + engine,
      vm.value("paused", false) ? "; paused by a rule" : "", readings,
      readings == 0 ? "" : ", " + duration(number_in(vm, "reading_ns") / readings) + " each");
  Table table({{"RULE"},
               {"KIND"},
               {"STATE"},
               {"HITS", Align::right},
               {"JUDGED", Align::right},
               {"LOOKS", Align::right},
               {"ALARMS", Align::right},
               {"WHERE"}});
  for (const json& rule : vm.value("rules", json::array())) {
    const std::string reason = text_in(rule, "reason");
    table.row({text_in(rule, "rule"), text_in(rule, "kind"), text_in(rule, "state"),
               std::to_string(number_in(rule, "hits")), std::to_string(number_in(rule, "judged")),
               std::to_string(number_in(rule, "looks")), std::to_string(number_in(rule, "alarms")),
               reason.empty() ? sites_in(rule) : reason});
  }
  table.print(session.out, {.headers = session.common.headers, .width = session.width});
}

void print_watch(Session& session, const json& watch) {
  const std::uint64_t runs_ns = std::max<std::uint64_t>(number_in(watch, "runs_ns"), 1);
  const std::uint64_t cpu_ns = number_in(watch, "cpu_ns");
  session.out.print(
      "watch (pid {}): {} rules, read {}; runs for {}; {} alarms, {} lost; CPU {} ({:.1f} %), {}\n",
      number_in(watch, "pid"), number_in(watch, "rules"), text_in(watch, "rules_read"),
      duration(runs_ns), number_in(watch, "alarms"), number_in(watch, "lost"), duration(cpu_ns),
      100.0 * static_cast<double>(cpu_ns) / static_cast<double>(runs_ns),
      byte_size(number_in(watch, "memory_bytes")));
  for (const json& vm : watch.value("vms", json::array())) print_vm(session, vm);
}

/// Only what is about the VM; whether there is anything.
bool keep_only(json& watch, const std::string& wanted) {
  json kept = json::array();
  for (json& vm : watch["vms"]) {
    if (is_of(vm, wanted)) kept.push_back(std::move(vm));
  }
  watch["vms"] = std::move(kept);
  return wanted.empty() || !watch["vms"].empty();
}

}  // namespace

Result<WatchStatusSocket> WatchStatusSocket::open() {
  VMSIGHT_TRY(const std::string directory, make_journal_directory());
  static_cast<void>(sockets_in(directory));
  const std::string path =
      fmt::format("{}/{}{}{}", directory, socket_prefix, ::getpid(), socket_suffix);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof address.sun_path) {
    return Error{.code = ErrorCode::unsupported,
                 .message = "listen at " + path + ": it is too long"};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return os_error(errno, "listen at " + path);
  ::unlink(path.c_str());  // of an earlier process with our PID
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(socket.get(), 8) != 0) {
    return os_error(errno, "listen at " + path);
  }
  return WatchStatusSocket(path, std::move(socket));
}

WatchStatusSocket::~WatchStatusSocket() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

void WatchStatusSocket::serve(const std::function<std::string()>& document) const {
  constexpr unsigned most_at_once = 8;
  for (unsigned i = 0; i < most_at_once; ++i) {
    const UniqueFd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer) return;
    if (!is_our_user(peer.get())) continue;
    const auto file = sealed_file("vmsight-status", document());
    constexpr std::byte one{1};
    if (file) static_cast<void>(send_with_fd(peer.get(), {&one, 1}, file->get()));
  }
}

Result<void> show_watch_status(Session& session) {
  std::vector<std::string> paths;
  if (!journal_directory().empty()) {
    VMSIGHT_TRY(const std::string directory, make_journal_directory());
    paths = sockets_in(directory);
  }
  json watches = json::array();
  for (const std::string& path : paths) {
    auto watch = ask(path);
    if (!watch) {
      fmt::print(stderr, "vmsight: warning: {}\n", for_terminal(watch.error().message));
    } else if (keep_only(*watch, session.common.vm)) {
      watches.push_back(*std::move(watch));
    }
  }
  if (watches.empty() && !session.common.vm.empty()) {
    return Error{
        .code = ErrorCode::not_found,
        .message = fmt::format("no vmsight watch of ours watches {}", session.common.vm),
        .hint = "`vmsight watch --status` shows all; VMs have the names of `vmsight list`"};
  }
  if (session.common.json) {
    session.out.print("{}\n", json{{"schema", "vmsight.watch.status/1"}, {"watches", watches}}.dump(
                                  -1, ' ', true, json::error_handler_t::replace));
    return {};
  }
  if (watches.empty()) session.out.print("no vmsight watch of ours runs\n");
  for (const json& watch : watches) print_watch(session, watch);
  return {};
}

}  // namespace vmsight
