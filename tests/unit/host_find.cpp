// list_vms, find_vm and open_vm on a program that only has QEMU's name and arguments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <csignal>
#include <filesystem>

#include "base/os.h"
#include "host/process.h"
#include "vmsight/vm.h"

namespace vmsight::host_find_test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A copy of the shell, named like QEMU, that waits. `user` is who starts it.
class FakeQemu {
 public:
  FakeQemu(std::string program, std::vector<std::string> arguments, uid_t user = ::getuid(),
           mode_t mode = 0755) {
    directory_ = testing::TempDir() + "vmsight-find-XXXXXX";
    if (::mkdtemp(directory_.data()) == nullptr) std::abort();
    const std::string path = directory_ + "/" + program;
    fs::copy_file("/bin/sh", path);
    ::chmod(directory_.c_str(), 0755);
    ::chmod(path.c_str(), mode);
    arguments.insert(arguments.begin(), {path, "-c", "kill -STOP $$; exit", "sh"});
    std::vector<char*> raw;
    for (std::string& argument : arguments) raw.push_back(argument.data());
    raw.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      if (::setresuid(user, user, user) == 0) ::execv(path.c_str(), raw.data());
      ::_exit(1);
    }
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WEXITED | WNOWAIT);
  }
  ~FakeQemu() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    fs::remove_all(directory_);
  }
  pid_t pid() const { return pid_; }
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  pid_t pid_ = 0;
};

std::string unique_name(const char* stem) { return fmt::format("{}-{}", stem, ::getpid()); }

TEST(FindVm, ByNamePidAndUuid) {
  const std::string name = unique_name("found"), uuid = unique_name("uuid");
  const FakeQemu qemu("qemu-system-x86_64",
                      {"-name", name, "-uuid", uuid, "-m", "256", "-smp", "2", "-machine", "q35",
                       "-accel", "tcg", "-qmp", "unix:sock,server=on,wait=off"});
  for (const std::string& spec : {name, uuid, std::to_string(qemu.pid())}) {
    auto vm = find_vm(spec);
    ASSERT_TRUE(vm) << vm.error().message;
    EXPECT_EQ(vm->pid, qemu.pid());
    EXPECT_EQ(vm->name, name);
    EXPECT_EQ(vm->memory_bytes, 256u << 20);
    EXPECT_EQ(vm->vcpus, 2u);
    EXPECT_EQ(vm->machine, "q35");
    EXPECT_EQ(vm->accelerator, Accelerator::tcg);
    EXPECT_EQ(vm->uid, ::getuid());
    EXPECT_THAT(vm->executable, HasSubstr(qemu.directory()));
    ASSERT_EQ(vm->qmp_sockets.size(), 1u);
    EXPECT_EQ(vm->qmp_sockets[0].front(), '/');
  }
}

TEST(FindVm, WithoutAName) {
  const FakeQemu qemu("qemu-kvm", {});
  auto vm = find_vm(fmt::format("qemu-{}", qemu.pid()));
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_EQ(vm->accelerator, Accelerator::tcg);  // it has no KVM descriptor
}

TEST(FindVm, NamesTheAmbiguousOnes) {
  const std::string name = unique_name("twin");
  const FakeQemu a("qemu-system-x86_64", {"-name", name}), b("qemu-system-x86_64", {"-name", name});
  auto vm = find_vm(name);
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::ambiguous);
  EXPECT_THAT(vm.error().message, HasSubstr(std::to_string(a.pid())));
  EXPECT_THAT(vm.error().message, HasSubstr(std::to_string(b.pid())));
}

TEST(FindVm, APidIsTakenBeforeANameThatReadsLikeIt) {
  const FakeQemu meant("qemu-system-x86_64", {});
  const FakeQemu other("qemu-system-x86_64", {"-name", std::to_string(meant.pid())});
  auto vm = find_vm(std::to_string(meant.pid()));
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_EQ(vm->pid, meant.pid());
}

constexpr uid_t some_user = 12345, another_user = 12346;

TEST(FindVm, ANameThatAnotherUserClaimsStaysOurs) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can start programs of other users";
  const std::string name = unique_name("claimed"), uuid = unique_name("claimed-uuid");
  const std::vector<std::string> claim = {"-name", name,   "-uuid",
                                          uuid,    "-qmp", "unix:/claimed/qmp,server=on,wait=off"};
  const FakeQemu ours("qemu-system-x86_64", claim);
  const FakeQemu claimant("qemu-system-x86_64", claim, some_user);
  // Nobody but its owner may read the program: then root owns the /proc entry of what it runs.
  const FakeQemu hidden("qemu-system-x86_64", claim, some_user, 0711);
  for (const std::string& spec : {name, uuid, std::string("/claimed/qmp")}) {
    auto vm = find_vm(spec);
    ASSERT_TRUE(vm) << spec << ": " << vm.error().message;
    EXPECT_EQ(vm->pid, ours.pid());
    EXPECT_THAT(vm->passed_over,
                HasSubstr(fmt::format("process {} of user 12345", claimant.pid())));
    EXPECT_THAT(vm->passed_over, HasSubstr(std::to_string(hidden.pid())));
  }
  EXPECT_EQ(find_vm(std::to_string(ours.pid()))->passed_over, "");
}

TEST(FindVm, OfTwoUsersNeitherIsTakenForTheOther) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can start programs of other users";
  const std::string name = unique_name("contested");
  const FakeQemu one("qemu-system-x86_64", {"-name", name}, some_user);
  EXPECT_EQ(find_vm(name)->pid, one.pid());
  const FakeQemu two("qemu-system-x86_64", {"-name", name}, another_user);
  auto vm = find_vm(name);
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::ambiguous);
  EXPECT_THAT(vm.error().message, HasSubstr("of user 12345"));
  EXPECT_THAT(vm.error().message, HasSubstr("of user 12346"));
}

TEST(FindVm, APathThatDoesNotExistIsCalledThat) {
  for (const char* path : {"/no/such/image", "./no-such-image"}) {
    auto vm = find_vm(path);
    ASSERT_FALSE(vm);
    EXPECT_EQ(vm.error().code, ErrorCode::not_found);
    EXPECT_THAT(vm.error().message, HasSubstr("No such file"));
    EXPECT_FALSE(vm.error().hint.empty());
  }
  auto socket = find_vm("/dev/null");
  ASSERT_FALSE(socket);
  EXPECT_THAT(socket.error().message, HasSubstr("neither"));
}

TEST(FindVm, ByTheNamesThatDistributionsGiveIt) {
  const std::string name = unique_name("wrapped");
  const FakeQemu qemu(".qemu-system-x86_64-wrapped", {"-name", name});
  auto vm = find_vm(name);
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_EQ(vm->pid, qemu.pid());
}

TEST(EmulatorArguments, AreToldFromThoseOfOtherPrograms) {
  EXPECT_TRUE(has_emulator_arguments({"emulator", "-machine", "q35"}));
  EXPECT_TRUE(has_emulator_arguments({"emulator", "--accel", "kvm"}));
  EXPECT_TRUE(has_emulator_arguments({"emulator", "-m", "512", "-drive", "file=x"}));
  EXPECT_FALSE(has_emulator_arguments({"python3", "-m", "http.server"}));
  EXPECT_FALSE(has_emulator_arguments({"machine", "accel", "smp"}));
  EXPECT_FALSE(has_emulator_arguments({}));
}

TEST(FindVm, SaysWhatThereIs) {
  const std::string name = unique_name("here");
  const FakeQemu qemu("qemu-system-x86_64", {"-name", name});
  auto vm = find_vm("no-such-vm");
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::not_found);
  EXPECT_THAT(vm.error().hint, HasSubstr(name));
}

TEST(FindVm, AnUnknownPidIsNotFound) {
  for (const char* spec : {"4194305", "99999999999", "0", ""}) {
    auto vm = find_vm(spec);
    ASSERT_FALSE(vm) << spec;
    EXPECT_EQ(vm.error().code, ErrorCode::not_found) << spec;
  }
}

TEST(FindVm, ARenamedQemuByItsPid) {
  const FakeQemu qemu("emulator", {"-name", unique_name("renamed"), "-machine", "q35", "-m", "64"});
  auto by_name = find_vm(unique_name("renamed"));
  EXPECT_FALSE(by_name);
  auto vm = find_vm(std::to_string(qemu.pid()));
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_EQ(vm->machine, "q35");
}

TEST(FindVm, AnotherProgramsPidIsRefused) {
  const FakeQemu other("python3", {"-m", "http.server"});
  auto vm = find_vm(std::to_string(other.pid()));
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::not_found);
  EXPECT_THAT(vm.error().message, HasSubstr("not QEMU"));
}

TEST(ListVms, IsSortedAndLeavesOthersOut) {
  const FakeQemu a("qemu-system-x86_64", {}), b("qemu-system-x86_64", {}), other("emulator", {});
  auto list = list_vms();
  ASSERT_TRUE(list) << list.error().message;
  std::vector<pid_t> pids;
  for (const VmInfo& vm : list->vms) pids.push_back(vm.pid);
  EXPECT_TRUE(std::is_sorted(pids.begin(), pids.end()));
  EXPECT_THAT(pids, testing::IsSupersetOf({a.pid(), b.pid()}));
  EXPECT_THAT(pids, testing::Not(testing::Contains(other.pid())));
}

TEST(OpenVm, SaysThatThereIsNoGuestMemory) {
  const FakeQemu qemu("qemu-system-x86_64", {"-m", "64"});
  auto info = find_vm(std::to_string(qemu.pid()));
  ASSERT_TRUE(info);
  auto vm = open_vm(*info);
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::not_found);
  EXPECT_THAT(vm.error().message, HasSubstr("64 MiB"));
}

TEST(OpenVm, APidThatIsAnotherProcessNow) {
  const FakeQemu qemu("qemu-system-x86_64", {});
  auto info = find_vm(std::to_string(qemu.pid()));
  ASSERT_TRUE(info);
  ++info->start_time;
  auto vm = open_vm(*info);
  ASSERT_FALSE(vm);
  EXPECT_EQ(vm.error().code, ErrorCode::vm_gone);
}

}  // namespace
}  // namespace vmsight::host_find_test
