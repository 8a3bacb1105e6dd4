// The other end of a QMP socket, answering from a recording (tests/replay/data/vm/record) or as a
// test wants it.
#pragma once

#include <sys/socket.h>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/os.h"

namespace vmsight::test {

class FakeQmp {
 public:
  /// `recording`: {"greeting": {...}, "answers": {command or command-line: answer}}.
  explicit FakeQmp(nlohmann::json recording) : recording_(std::move(recording)) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    client_ = UniqueFd(ends[0]);
    server_ = UniqueFd(ends[1]);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeQmp() {
    client_.reset();
    ::shutdown(server_.get(), SHUT_RDWR);
    thread_.join();
  }

  /// For QmpClient::negotiate, once.
  UniqueFd take_client() { return std::move(client_); }

 private:
  void serve() {
    using nlohmann::json;
    send(recording_["greeting"].dump() + "\r\n");
    std::string received;
    char chunk[4096];
    for (ssize_t got = 0; (got = ::recv(server_.get(), chunk, sizeof chunk, 0)) > 0;) {
      received.append(chunk, static_cast<std::size_t>(got));
      for (std::size_t end; (end = received.find('\n')) != std::string::npos;) {
        answer(json::parse(received.substr(0, end)));
        received.erase(0, end + 1);
      }
    }
  }

  void answer(const nlohmann::json& command) {
    using nlohmann::json;
    std::string key = command.at("execute");
    if (key == "human-monitor-command") key = command.at("arguments").at("command-line");
    json answer = key == "qmp_capabilities" ? json{{"return", json::object()}}
                                            : recording_["answers"].value(
                                                  key, json{{"error", {{"desc", "not recorded"}}}});
    answer["id"] = command.at("id");
    send(R"({"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}})"
         "\r\n");
    send(answer.dump() + "\r\n");
  }

  void send(const std::string& text) {
    static_cast<void>(::send(server_.get(), text.data(), text.size(), MSG_NOSIGNAL));
  }

  nlohmann::json recording_;
  UniqueFd client_, server_;
  std::thread thread_;
};

}  // namespace vmsight::test
