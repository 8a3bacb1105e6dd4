#include "agent/guest_agent.h"

#include <elf.h>
#include <gtest/gtest.h>

#include "support/agent_peer.h"

namespace vmsight::agent_guest_agent_test {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;
using test::AgentPeer;
using test::hear;
using test::say;

constexpr std::uint64_t ram_start = 0x100000, ram_size = 0x40000, ram_offset = 0x2000;

std::string encode(std::string_view bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      bits = bits << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < 4; ++j)
      text += i + j > bytes.size() ? '=' : digits[bits >> (18 - 6 * j) & 63];
  }
  return text;
}

/// A qemu-ga with a kcore of one segment.
class FakeGuestAgent {
 public:
  void play(int socket) {
    std::string came;
    while (true) {
      const std::string more = hear(socket);
      if (more.empty()) return;
      came += more;
      for (auto end = came.find('\n'); end != std::string::npos; end = came.find('\n')) {
        std::string line = came.substr(0, end);
        came.erase(0, end + 1);
        const auto sentinel = line.rfind('\xff');
        if (sentinel != std::string::npos) line.erase(0, sentinel + 1);
        const json command = json::parse(line, nullptr, false);
        if (command.is_object()) {
          say(socket,
              (*this)(command.value("execute", ""), command.value("arguments", json::object())));
        }
      }
    }
  }

  std::string operator()(const std::string& name, const json& arguments) {
    if (name == refused)
      return R"({"error": {"class": "GenericError", "desc": "not today"}})"
             "\n";
    if (name == "guest-sync-delimited") return "\xff" + reply(arguments["id"]);
    if (name == "guest-info") return reply({{"supported_commands", commands()}});
    if (name == "guest-file-open") return ++open, reply(1000);
    if (name == "guest-file-close") return --open, reply(json::object());
    if (name == "guest-file-seek") {
      position = arguments["offset"].get<std::uint64_t>();
      return reply({{"position", position}, {"eof", false}});
    }
    if (name == "guest-file-read") {
      const std::string bytes = read(arguments["count"].get<std::size_t>());
      position += bytes.size();
      return reply({{"count", bytes.size()}, {"buf-b64", encode(bytes)}, {"eof", false}});
    }
    return reply(json::object());
  }

  std::string refused, disabled;
  int open = 0;
  std::uint64_t position = 0;
  unsigned headers = 1;  // program headers that kcore has

 private:
  static std::string reply(const json& value) { return json{{"return", value}}.dump() + "\n"; }

  json commands() const {
    json all = json::array();
    for (const char* name :
         {"guest-file-open", "guest-file-seek", "guest-file-read", "guest-file-close"}) {
      all.push_back({{"name", name}, {"enabled", name != disabled}});
    }
    return all;
  }

  std::string read(std::size_t size) const {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) {
      const std::uint64_t at = position + i;
      const std::string head = header();
      if (at < head.size()) {
        bytes += head[at];
      } else if (at >= ram_offset && at < ram_offset + ram_size) {
        bytes += static_cast<char>(test::pattern(ram_start + at - ram_offset));
      }
    }
    return bytes;
  }

  std::string header() const {
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_type = ET_CORE;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<Elf64_Half>(headers);
    Elf64_Phdr program{};
    program.p_type = PT_LOAD;
    program.p_vaddr = 0xffff'8880'0010'0000;
    program.p_paddr = ram_start;
    program.p_memsz = ram_size;
    program.p_offset = ram_offset;
    std::string text(reinterpret_cast<const char*>(&header), sizeof header);
    text.append(reinterpret_cast<const char*>(&program), sizeof program);
    program.p_type = PT_NOTE;
    for (unsigned i = 1; i < headers; ++i)
      text.append(reinterpret_cast<const char*>(&program), sizeof program);
    return text;
  }
};

TEST(Base64, Decodes) {
  for (const std::string bytes : {"", "a", "ab", "abc", "\xff\xfe\xfd\xfc"}) {
    std::array<std::byte, 4> into{};
    ASSERT_EQ(decode_base64(encode(bytes), into), bytes.size());
    EXPECT_EQ(std::memcmp(into.data(), bytes.data(), bytes.size()), 0);
  }
  std::array<std::byte, 3> into{};
  for (const char* bad : {"a", "ab", "abc", "ab c", "=abc", "a===", "====", "abc\n", "YWJjZA=="}) {
    EXPECT_FALSE(decode_base64(bad, into)) << bad;
  }
}

TEST(GuestAgent, ReadsKcoreAndClosesIt) {
  FakeGuestAgent fake;
  {
    AgentPeer peer([&](int socket) { fake.play(socket); });
    auto memory = GuestAgentMemory::open(peer.port());
    ASSERT_TRUE(memory) << memory.error().message;
    EXPECT_EQ(fake.open, 1);
    ASSERT_EQ((*memory)->ranges().size(), 1u);
    EXPECT_EQ((*memory)->ranges()[0].start, GuestPhys(ram_start));
    std::vector<std::byte> bytes(0x3000);
    std::array<AgentMemory::Run, 3> runs{
        {{GuestPhys(ram_start + 0x1000), std::span(bytes).first(0x1000)},
         {GuestPhys(0x1000), std::span(bytes).subspan(0x1000, 0x1000)},  // no RAM
         {GuestPhys(ram_start + ram_size - 16),
          std::span(bytes).subspan(0x2000, 0x1000)}}};  // ends
    ASSERT_TRUE((*memory)->read(runs));
    EXPECT_EQ(runs[0].got, 0x1000u);
    EXPECT_EQ(bytes[5], test::pattern(ram_start + 0x1005));
    EXPECT_EQ(runs[1].got, 0u);
    EXPECT_EQ(runs[2].got, 16u);
    fake.headers = 3;  // memory was plugged in
    std::this_thread::sleep_for(150ms);
    runs[0].got = 0;
    ASSERT_TRUE((*memory)->read(runs));
    EXPECT_EQ(runs[0].got, 0x1000u);
    memory->reset();
  }
  EXPECT_EQ(fake.open, 0);
}

/// One that was started anew knows nothing of our file; what it refuses is no memory that is absent.
TEST(GuestAgent, AnAgentThatWasStartedAnewIsAnError) {
  FakeGuestAgent fake;
  AgentPeer peer([&](int socket) { fake.play(socket); });
  auto memory = GuestAgentMemory::open(peer.port());
  ASSERT_TRUE(memory) << memory.error().message;
  std::vector<std::byte> bytes(0x2000);
  const auto read = [&](std::uint64_t from) {
    AgentMemory::Run run{GuestPhys(from), bytes};
    return (*memory)->read(std::span(&run, 1));
  };
  // Far from the read before, and near to it.
  for (const std::uint64_t from : {ram_start, ram_start + 0x20000}) {
    ASSERT_TRUE(read(ram_start + 0x20000));
    fake.refused = "guest-file-seek";
    const auto done = read(from);
    fake.refused = "";
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::vm_gone);
    EXPECT_NE(done.error().message.find("started anew"), std::string::npos) << done.error().message;
    EXPECT_NE(done.error().hint.find("attach again"), std::string::npos);
  }
  ASSERT_TRUE(read(ram_start)) << "its file was not opened again";
  EXPECT_EQ(fake.open, 3);
}

TEST(GuestAgent, SaysWhatIsMissing) {
  const auto open = [](FakeGuestAgent fake) {
    AgentPeer peer([&](int socket) { fake.play(socket); });
    auto memory = GuestAgentMemory::open(peer.port());
    return memory ? Error{.message = "works"} : std::move(memory).error();
  };
  EXPECT_EQ(open({}).message, "works");
  FakeGuestAgent disabled;
  disabled.disabled = "guest-file-read";
  EXPECT_EQ(open(disabled).code, ErrorCode::unsupported);
  EXPECT_NE(open(disabled).message.find("guest-file-read is disabled"), std::string::npos);
  FakeGuestAgent locked;
  locked.refused = "guest-file-open";
  EXPECT_NE(open(locked).message.find("not today"), std::string::npos);
  EXPECT_NE(open(locked).hint, "");
}

TEST(GuestAgent, SyncDropsWhatWasMeantForOthers) {
  AgentPeer peer([](int socket) {
    const std::string line = hear(socket);
    const json command = json::parse(line.substr(1));
    say(socket, R"({"return": {"buf-b64": "AAAA)" + std::string(2'000'000, 'A'));
    say(socket, "\n\xff{\"return\": 0}\n\xff not JSON \n{}\n\xff");
    say(socket, json{{"return", command["arguments"]["id"]}}.dump() + "\n{\"return\": 17}\n");
    hear(socket);
  });
  GuestAgent agent(peer.port());
  auto done = agent.sync();
  ASSERT_TRUE(done) << done.error().message;
  const auto answer = agent.execute({"guest-ping"});
  ASSERT_TRUE(answer);
  EXPECT_EQ(*answer, 17);
}

/// A peer that syncs and then says this.
Result<json> answer_of(const std::string& text) {
  AgentPeer peer([&](int socket) {
    const json command = json::parse(hear(socket).substr(1));
    say(socket, "\xff" + json{{"return", command["arguments"]["id"]}}.dump() + "\n");
    hear(socket);
    say(socket, text);
  });
  GuestAgent agent(peer.port());
  VMSIGHT_TRY_VOID(agent.sync());
  return agent.execute({"guest-ping"}, 2s);
}

TEST(GuestAgent, RefusesForgedAnswers) {
  EXPECT_TRUE(answer_of("{\"return\": {}}\n"));
  EXPECT_EQ(answer_of("garbage\n").error().code, ErrorCode::bad_data);
  EXPECT_EQ(answer_of("[]\n").error().code, ErrorCode::bad_data);
  EXPECT_EQ(answer_of("{}\n").error().code, ErrorCode::unsupported);
  EXPECT_EQ(answer_of("{\"error\": 7}\n").error().code, ErrorCode::unsupported);
  EXPECT_EQ(answer_of("{\"return\": ").error().code, ErrorCode::os) << "it hung up";
  EXPECT_EQ(answer_of(std::string(3u << 20, 'x')).error().code, ErrorCode::bad_data);
}

TEST(GuestAgent, SilenceIsATimeout) {
  AgentPeer peer([](int socket) {
    while (!hear(socket).empty()) {
    }
  });
  GuestAgent agent(peer.port());
  const auto done = agent.sync(50ms);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::timeout);
  EXPECT_NE(done.error().hint.find("qemu-guest-agent"), std::string::npos);
}

}  // namespace
}  // namespace vmsight::agent_guest_agent_test
