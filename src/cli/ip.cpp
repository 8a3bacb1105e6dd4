// vmsight ip VM [addr|link]: network devices.
#include "cli/filters.h"
#include "cli/target.h"
#include "render/network.h"

namespace vmsight {
namespace {

class Ip : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("WHAT", what_, "addr (also addresses) or link")->group("Arguments");
    app.add_option("DEVICE", devices_, "only these devices")->group("Arguments");
    app.add_flag("-4", ipv4_, "IPv4 addresses only")->group(filter_group);
    app.add_flag("-6", ipv6_, "IPv6 addresses only")->group(filter_group);
    app.add_option("--netns", netns_, "only this network namespace")
        ->group(filter_group)
        ->type_name("INODE");
    app.add_flag("-s,--stats", format_.statistics, "bytes and packets")->group(format_group);
    app.add_flag("-b,-r,--brief", format_.brief, "a line a device (so that -br works)")
        ->group(format_group);
  }

  Result<void> run(Session& session) override {
    const std::string_view what = what_;
    const bool link = !what.empty() && std::string_view("link").starts_with(what);
    const bool address = std::string_view("address").starts_with(what) || what == "addr";
    if (!link && !address) return usage_error("ip: '" + what_ + "' is not addr or link");
    format_.addresses = address;
    format_.table.headers = session.common.headers;
    StateVerb verb;
    verb.options.parts = part_net_devices;
    verb.filter = [this](State& state, Target&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Target&) {
      print_net_devices(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  /// As ip(8): devices that have no address of the family are left out where addresses are asked for.
  void keep_family(State& state) const {
    if (ipv4_ == ipv6_) return;
    for (NetDevice& device : state.net_devices) (ipv4_ ? device.ipv6 : device.ipv4).clear();
    if (!format_.addresses) return;
    std::erase_if(state.net_devices, [](const NetDevice& device) {
      return device.ipv4.empty() && device.ipv6.empty();
    });
  }

  Result<void> filter(State& state) const {
    std::erase_if(state.net_devices, [this](const NetDevice& device) {
      return !among(devices_, device.name) || (netns_ && device.netns != *netns_);
    });
    if (!devices_.empty() && state.net_devices.empty()) {
      return Error{.code = ErrorCode::not_found,
                   .message = "no network device " + devices_.front() + " in the guest",
                   .hint = "`vmsight ip VM -br` lists them"};
    }
    keep_family(state);
    return {};
  }

  bool ipv4_ = false, ipv6_ = false;
  std::string what_ = "addr";
  std::vector<std::string> devices_;
  std::optional<std::uint64_t> netns_;
  IpFormat format_;
};

}  // namespace

extern const VerbInfo ip_verb{
    .name = "ip",
    .group = "What is in the guest",
    .arguments = "VM [addr|link] [DEVICE...] [options]",
    .summary = "Network devices and addresses of all network namespaces",
    .examples =
        "  vmsight ip web1 addr -4 -br\n"
        "  vmsight ip web1 link eth0 -s\n",
    .make = make_verb<Ip>,
};

}  // namespace vmsight
