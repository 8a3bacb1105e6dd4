#include "state/sockets.h"

#include <fmt/format.h>

#include <algorithm>

#include "state/retry.h"

namespace vmsight {
namespace {

// Bounds on our memory and time.
constexpr std::size_t max_sockets = 1u << 20, max_nodes = 1u << 22;
constexpr std::uint64_t max_listed_buckets = 1u << 26;
constexpr unsigned max_retries = 64;

}  // namespace

Result<SocketsReader> SocketsReader::resolve(Kernel& kernel) {
  SocketsReader self;
  VMSIGHT_TRY(self.namespaces_, NetNamespaces::resolve(kernel));
  VMSIGHT_TRY(self.socks_, SockReader::resolve(kernel));
  VMSIGHT_TRY(self.tables_, SocketTables::resolve(kernel, self.socks_.node()));
  Members members(kernel);
  self.devices_ = DeviceNames::resolve(members);
  VMSIGHT_TRY_VOID(members.check());
  return self;
}

void SocketsReader::read(Context& context) const {
  View view{context,
            namespaces_.list(context, "sockets"),
            owners(context),
            context.socket_files,
            {},
            max_nodes,
            max_listed_buckets,
            max_retries};
  std::sort(view.files.begin(), view.files.end(),
            [](const SocketFile& a, const SocketFile& b) { return a.inode < b.inode; });
  const std::vector<SocketTable> tables = tables_.list(context, view.namespaces);
  std::sort(view.namespaces.begin(), view.namespaces.end(),
            [](const NetNamespace& a, const NetNamespace& b) { return a.net < b.net; });
  for (const SocketTable& table : tables) {
    if (table.buckets.count <= view.buckets_left) read_table(view, table);
    view.buckets_left -= std::min(view.buckets_left, table.buckets.count);
  }
  read_unlisted(view);
  const bool full = context.state.sockets.size() >= max_sockets;
  if (full || view.nodes_left == 0 || view.buckets_left == 0) {
    context.state.problem("sockets", "there are too many to show them all");
  }
}

std::vector<SocketsReader::Owner> SocketsReader::owners(Context& context) const {
  Reader& reader = context.reader;
  std::vector<Owner> found;
  found.reserve(context.socket_files.size());
  for (const SocketFile& file : context.socket_files) {
    reader.clear_fault();
    const GuestVirt sock = socks_.sock(reader, file.socket);
    if (reader.ok() && sock != GuestVirt()) {
      found.push_back({sock, file});
    } else {
      context.state.problem(
          "sockets", fmt::format("pid {} fd {}: no socket at {}", file.pid, file.fd, file.socket));
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Owner& a, const Owner& b) { return a.sock < b.sock; });
  return found;
}

void SocketsReader::read_table(View& view, const SocketTable& table) const {
  Reader& reader = view.context.reader;
  std::size_t torn = 0;
  reader.clear_fault();
  const auto visit = [&](std::uint64_t bucket, std::uint64_t first) {
    if (view.nodes_left == 0) return;
    reader.begin_object();
    bool whole = read_chain(view, table, bucket, first);
    for (unsigned attempt = 1; !whole && view.try_again(attempt); ++attempt) {
      reader.begin_object();
      // From the bucket on, which may have changed as well.
      whole = read_chain(view, table, bucket, first_link(reader, table.buckets, bucket));
    }
    if (!whole) ++torn;
    for (const Found& found : view.chain) keep(view, found.sock, found.record);
    view.chain.clear();
    reader.clear_fault();
  };
  if (!each_chain(reader, table.buckets, visit)) {
    view.context.state.problem("sockets",
                               fmt::format("{}: the table breaks at {}", table.name,
                                           reader.fault().value_or(table.buckets.start)));
    reader.clear_fault();
  }
  if (torn != 0) {
    view.context.state.problem(
        "sockets", fmt::format("{}: {} chains changed while they were read", table.name, torn));
  }
}

/// Collects the sockets of one chain. False if it, or one of them, could not be read whole.
bool SocketsReader::read_chain(View& view, const SocketTable& table, std::uint64_t bucket,
                               std::uint64_t first) const {
  Reader& reader = view.context.reader;
  const std::uint64_t mask = table.buckets.count - 1;
  bool whole = true;
  view.chain.clear();
  const auto visit = [&](GuestVirt node) {
    if (view.nodes_left == 0) return reader.set_fault(node);
    --view.nodes_left;
    const GuestVirt sock = node - table.node;
    Found found{sock, {}};
    const bool misplaced = table.checked && (socks_.hash(reader, sock) & mask) != bucket;
    if (misplaced || !read_sock(view, sock, found.record)) {
      whole = false;
    } else {
      view.chain.push_back(std::move(found));
    }
  };
  const std::optional<std::uint64_t> end = walk_chain(reader, first, visit);
  if (!end || !whole) return false;
  return !table.checked || *end >> 1 == bucket;
}

/// Sockets with a file that stand in no table: of families without one, and unbound ones.
void SocketsReader::read_unlisted(View& view) const {
  Context& context = view.context;
  for (Owner& owner : view.owners) {
    if (owner.found) continue;  // in a table, or another file of a socket that was just read
    Socket record;
    context.reader.begin_object();
    bool whole = read_sock(view, owner.sock, record);
    for (unsigned attempt = 1; !whole && view.try_again(attempt); ++attempt) {
      context.reader.begin_object();
      record = Socket{};
      whole = read_sock(view, owner.sock, record);
    }
    if (whole) {
      keep(view, owner.sock, record);
      continue;
    }
    context.state.problem("sockets", fmt::format("pid {} fd {}: the socket at {} is not readable",
                                                 owner.file.pid, owner.file.fd, owner.sock));
  }
  context.reader.clear_fault();
}

bool SocketsReader::View::try_again(unsigned attempt) {
  const bool live = context.reader.memory().is_live();
  if (!live || attempt >= context.options.attempts || retries_left == 0) return false;
  --retries_left;
  prepare_retry(context, attempt);
  return true;
}

/// False, without a fault, if the sock is none or cannot be read.
bool SocketsReader::read_sock(View& view, GuestVirt sock, Socket& into) const {
  Reader& reader = view.context.reader;
  const bool usable = reader.ok() && socks_.read(view.context, sock, into);
  const GuestVirt net = socks_.net(reader, sock);
  into.netns = netns(view, net);
  const bool whole = usable && reader.ok();
  if (whole && into.ifindex != 0) {
    into.device = devices_.name(view.context, net, into.ifindex, view.devices);
  }
  reader.clear_fault();
  return whole;
}

std::uint64_t SocketsReader::netns(View& view, GuestVirt net) const {
  const auto at =
      std::lower_bound(view.namespaces.begin(), view.namespaces.end(), net,
                       [](const NetNamespace& ns, GuestVirt address) { return ns.net < address; });
  if (at != view.namespaces.end() && at->net == net) return at->inode;
  return namespaces_.inode(view.context.reader, net);  // one that is being dismantled
}

void SocketsReader::keep(View& view, GuestVirt sock, const Socket& record) const {
  std::vector<Socket>& sockets = view.context.state.sockets;
  auto owner = std::lower_bound(view.owners.begin(), view.owners.end(), sock,
                                [](const Owner& one, GuestVirt at) { return one.sock < at; });
  if (owner == view.owners.end() || owner->sock != sock) return keep_by_inode(view, record);
  for (; owner != view.owners.end() && owner->sock == sock; ++owner) {
    owner->found = true;
    if (sockets.size() >= max_sockets) continue;
    Socket& one = sockets.emplace_back(record);
    one.pid = owner->file.pid;
    one.tid = owner->file.tid;
    one.fd = owner->file.fd;
    one.inode = owner->file.inode;
  }
}

/// For a socket that no file holds: the kernel gave it the inode number of the socket that it
/// works for (a connection of MPTCP), and the guest's own tools find its owner by that.
void SocketsReader::keep_by_inode(View& view, const Socket& record) const {
  std::vector<Socket>& sockets = view.context.state.sockets;
  const auto [first, last] =
      std::equal_range(view.files.begin(), view.files.end(), SocketFile{.inode = record.inode},
                       [](const SocketFile& a, const SocketFile& b) { return a.inode < b.inode; });
  const bool owned = record.inode != 0 && first != last;
  for (auto file = first; owned && file != last && sockets.size() < max_sockets; ++file) {
    Socket& one = sockets.emplace_back(record);
    one.pid = file->pid;
    one.tid = file->tid;
    one.fd = file->fd;
  }
  if (!owned && sockets.size() < max_sockets) sockets.push_back(record);
}

}  // namespace vmsight
