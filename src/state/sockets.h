// All sockets of the guest, each with the files that are it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "state/context.h"
#include "state/device_names.h"
#include "state/net_namespaces.h"
#include "state/sock_reader.h"
#include "state/socket_tables.h"

namespace vmsight {

class SocketsReader {
 public:
  static Result<SocketsReader> resolve(Kernel& kernel);

  /// Needs Context::socket_files. A socket gives one record for each file that is it, or that has
  /// its inode number, in whatever process; one without files, whether the kernel's, orphaned or waiting to be
  /// accepted, gives a record without pid and fd.
  void read(Context& context) const;

 private:
  struct Owner {  // a file that is a socket
    GuestVirt sock;
    SocketFile file;
    bool found = false;  // in a table
  };
  struct Found {
    GuestVirt sock;
    Socket record;
  };
  /// What one view works on.
  struct View {
    Context& context;
    std::vector<NetNamespace> namespaces;  // sorted by address
    std::vector<Owner> owners;             // sorted by sock
    std::vector<SocketFile> files;         // sorted by inode
    std::vector<Found> chain;              // of the bucket that is being read
    std::size_t nodes_left = 0;            // bounds the time that forged chains cost
    std::uint64_t buckets_left = 0;        // ... and forged tables
    unsigned retries_left = 0;             // ... and broken ones
    DeviceNames::View devices{};
    /// One more attempt at what changed while it was read?
    bool try_again(unsigned attempt);
  };

  std::vector<Owner> owners(Context& context) const;
  void read_table(View& view, const SocketTable& table) const;
  bool read_chain(View& view, const SocketTable& table, std::uint64_t bucket,
                  std::uint64_t first) const;
  void read_unlisted(View& view) const;
  bool read_sock(View& view, GuestVirt sock, Socket& into) const;
  std::uint64_t netns(View& view, GuestVirt net) const;
  void keep(View& view, GuestVirt sock, const Socket& record) const;
  void keep_by_inode(View& view, const Socket& record) const;

  NetNamespaces namespaces_;
  SockReader socks_;
  SocketTables tables_;
  DeviceNames devices_;
};

}  // namespace vmsight
