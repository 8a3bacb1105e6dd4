#include "host/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmsight::host_command_line_test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t mebibyte = 1u << 20;

CommandLine parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "qemu-system-x86_64");
  auto line = parse_command_line(arguments);
  EXPECT_TRUE(line) << line.error().message;
  return line ? *line : CommandLine();
}

TEST(CommandLine, DefaultsAreQemus) {
  const CommandLine line = parse({});
  EXPECT_EQ(line.machine, "pc");
  EXPECT_EQ(line.vcpus, 1u);
  EXPECT_EQ(line.memory_bytes, 128 * mebibyte);
  ASSERT_EQ(line.main_memory.size(), 1u);
  EXPECT_EQ(line.main_memory[0].id, "pc.ram");
  EXPECT_THAT(line.accelerators, IsEmpty());
  EXPECT_THAT(line.qmp_sockets, IsEmpty());
}

TEST(CommandLine, NameAndUuid) {
  EXPECT_EQ(parse({"-name", "web"}).name, "web");
  EXPECT_EQ(parse({"-name", "guest=a,,b,debug-threads=on"}).name, "a,b");
  EXPECT_EQ(parse({"--uuid", "c0ffee"}).uuid, "c0ffee");
}

TEST(CommandLine, ValuesMayLookLikeOptions) {
  const CommandLine line = parse({"-append", "-m 5", "-nographic", "-m", "256", "disk.img"});
  EXPECT_EQ(line.memory_bytes, 256 * mebibyte);
}

TEST(CommandLine, VcpusInEverySpelling) {
  EXPECT_EQ(parse({"-smp", "4"}).vcpus, 4u);
  EXPECT_EQ(parse({"-smp", "2,maxcpus=8"}).vcpus, 2u);
  EXPECT_EQ(parse({"-smp", "cpus=3"}).vcpus, 3u);
  EXPECT_EQ(parse({"-smp", "sockets=2,cores=3,threads=2"}).vcpus, 12u);
  EXPECT_EQ(parse({"-smp", "maxcpus=6"}).vcpus, 6u);
  EXPECT_EQ(parse({"-machine", "q35,smp.cpus=5"}).vcpus, 5u);
  EXPECT_EQ(parse({"-smp", "cores=4294967295,threads=4294967295"}).vcpus, 65536u);
}

TEST(CommandLine, Accelerators) {
  EXPECT_THAT(parse({"-enable-kvm"}).accelerators, ElementsAre(Accelerator::kvm));
  EXPECT_THAT(parse({"-accel", "tcg,thread=multi"}).accelerators, ElementsAre(Accelerator::tcg));
  EXPECT_THAT(parse({"-machine", "pc,accel=kvm:tcg"}).accelerators,
              ElementsAre(Accelerator::kvm, Accelerator::tcg));
}

TEST(CommandLine, QmpSocketsInEverySpelling) {
  EXPECT_THAT(parse({"-qmp", "unix:/a,server=on,wait=off"}).qmp_sockets, ElementsAre("/a"));
  EXPECT_THAT(parse({"-qmp", "unix:/b,server,nowait"}).qmp_sockets, ElementsAre("/b"));
  EXPECT_THAT(parse({"-mon", "chardev=m,mode=control", "-chardev",
                     "socket,id=m,path=/c,,d,server=on,wait=off"})
                  .qmp_sockets,
              ElementsAre("/c,d"));
  EXPECT_THAT(parse({"-chardev", R"({"id":"m"})", "-qmp", "chardev:m"}).qmp_sockets, IsEmpty());
}

TEST(CommandLine, OtherSocketsAreNoMonitors) {
  EXPECT_THAT(parse({"-qmp", "unix:/client", "-qmp", "tcp::4444,server=on", "-monitor",
                     "unix:/human,server=on,wait=off", "-chardev",
                     "socket,id=s,path=/serial,server=on", "-mon", "chardev=s,mode=readline"})
                  .qmp_sockets,
              IsEmpty());
}

TEST(CommandLine, LibvirtsStyle) {
  const CommandLine line =
      parse({"-name",
             "guest=deb,debug-threads=on",
             "-S",
             "-object",
             R"({"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/m.aes"})",
             "-machine",
             "pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram",
             "-accel",
             "kvm",
             "-m",
             "size=524288k,slots=16,maxmem=4194304k",
             "-object",
             R"({"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"size":536870912})",
             "-overcommit",
             "mem-lock=off",
             "-smp",
             "2,sockets=2,cores=1,threads=1",
             "-no-user-config",
             "-chardev",
             "socket,id=charmonitor,fd=22,server=on,wait=off",
             "-mon",
             "chardev=charmonitor,id=monitor,mode=control"});
  EXPECT_TRUE(line.libvirt);
  EXPECT_EQ(line.name, "deb");
  EXPECT_EQ(line.machine, "pc-q35-7.2");
  EXPECT_EQ(line.memory_bytes, 512 * mebibyte);
  EXPECT_EQ(line.maximum_memory_bytes, 4096 * mebibyte);
  ASSERT_EQ(line.main_memory.size(), 1u);
  EXPECT_EQ(line.main_memory[0].kind, BackendKind::memfd);
  EXPECT_TRUE(line.main_memory[0].share);
  EXPECT_EQ(line.vcpus, 2u);
  EXPECT_THAT(line.qmp_sockets, IsEmpty());
}

TEST(CommandLine, NumaBackendsComeInNodeOrder) {
  const CommandLine line =
      parse({"-m", "3G", "-object", "memory-backend-ram,id=a,size=1G", "-object",
             "memory-backend-file,id=b,size=2G,mem-path=/huge,share=on", "-numa",
             "node,nodeid=1,memdev=a", "-numa", "node,nodeid=0,memdev=b", "-numa",
             "dist,src=0,dst=1,val=20"});
  ASSERT_EQ(line.main_memory.size(), 2u);
  EXPECT_EQ(line.main_memory[0].id, "b");
  EXPECT_EQ(line.main_memory[0].path, "/huge");
  EXPECT_EQ(line.main_memory[1].id, "a");
}

TEST(CommandLine, DimmsAndOtherBackends) {
  const CommandLine line =
      parse({"-object", "memory-backend-ram,id=d,size=256M", "-device",
             "pc-dimm,memdev=d,addr=0x140000000", "-device", "virtio-mem-pci,memdev=v,memaddr=1",
             "-object", "memory-backend-ram,id=v,size=1G"});
  ASSERT_EQ(line.dimms.size(), 2u);
  EXPECT_EQ(line.dimms[0].address, 0x140000000u);
  EXPECT_EQ(line.dimms[1].address, 1u);
  EXPECT_EQ(line.backends.size(), 2u);
}

TEST(CommandLine, MemoryOfTheBackendIfNotGiven) {
  const CommandLine line =
      parse({"-object", "memory-backend-memfd,id=m,size=1G", "-machine", "q35,memory-backend=m"});
  EXPECT_EQ(line.memory_bytes, 1024 * mebibyte);
}

TEST(CommandLine, MissingBackendIsAnError) {
  const std::vector<std::string> arguments = {"qemu", "-machine", "pc,memory-backend=none"};
  auto line = parse_command_line(arguments);
  ASSERT_FALSE(line);
  EXPECT_EQ(line.error().code, ErrorCode::bad_data);
}

TEST(CommandLine, UnfinishedOptionsAreSkipped) {
  EXPECT_EQ(parse({"-m"}).memory_bytes, 128 * mebibyte);
  EXPECT_EQ(parse({"-m", "-"}).memory_bytes, 128 * mebibyte);
  EXPECT_EQ(parse({"-object", "{", "-smp", "x", "-"}).vcpus, 1u);
}

}  // namespace
}  // namespace vmsight::host_command_line_test
