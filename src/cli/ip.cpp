// vmsight ip VM [addr|link] [show] [...]: network devices.
#include <algorithm>
#include <cstdlib>

#include "cli/address_prefix.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "cli/network_namespace.h"
#include "render/network.h"

namespace vmsight {
namespace {

/// `to PREFIX` of ip(8).
Result<AddressPrefix> parse_prefix(const std::string& text) {
  const std::size_t slash = std::min(text.find('/'), text.size());
  auto prefix = parse_address(text.substr(0, slash));
  const bool good = prefix && (slash == text.size() || prefix->set_bits(text.substr(slash + 1)));
  if (good) return *prefix;
  return usage_error("ip: '" + text + "' is no address or prefix", "as 10.0.0.0/8 or fe80::/64");
}

bool is_within(const NetAddress& address, const AddressPrefix& prefix) {
  const auto own = parse_address(address.local);
  return own && own->family == prefix.family && prefix.holds(own->bytes.data());
}

bool has_word(const std::vector<std::string_view>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

class Ip : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option(
           "WORD", words_,
           "addr (also address) or link, then show, then as ip(8): [dev] DEVICE, up, master "
           "DEVICE, type TYPE, group N, and of addresses scope SCOPE, to PREFIX, label "
           "PATTERN, permanent, dynamic, primary, secondary, temporary, tentative, "
           "deprecated, dadfailed")
        ->group("Arguments");
    app.add_flag("-4", ipv4_, "IPv4 addresses only")->group(filter_group);
    app.add_flag("-6", ipv6_, "IPv6 addresses only")->group(filter_group);
    app.add_option("-f,--family", family_, "the same as -4, -6 or link")
        ->group(filter_group)
        ->type_name("inet|inet6|link");
    app.add_option("-n,--netns", netns_, "only this network namespace")
        ->group(filter_group)
        ->type_name("INODE|NAME");
    app.add_flag("-s,--stats", statistics_, "bytes and packets")->group(format_group);
    app.add_flag("-o,--oneline", format_.one_line, "a line a device, or an address")
        ->group(format_group);
    app.add_flag("-b,-r", brief_, "-br: a line a device")->group(format_group);
    app.add_flag("--brief", format_.brief, "the same")->group(format_group);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY_VOID(parse_options());
    VMSIGHT_TRY_VOID(parse_words());
    format_.hardware = !format_.addresses || (ipv4_ == ipv6_ && !to_);
    format_.devices = label_.empty();
    format_.terse = format_.addresses && ipv6_ && !ipv4_ && devices_.empty();
    format_.table.headers = session.common.headers;
    StateVerb verb;
    verb.rows = part_net_devices;
    verb.options.parts = part_net_devices | (needs_namespaces(session) ? namespace_parts : 0U);
    verb.shown = part_net_devices;
    verb.filter = [this](State& state, Guest&) { return filter(state); };
    verb.text = [this](Output& out, const State& state, const Guest&) {
      print_net_devices(out, state, format_);
    };
    return show_state(session, verb);
  }

 private:
  /// Names of namespaces are asked for, or shown.
  bool needs_namespaces(const Session& session) const {
    return !netns_.empty() || !(session.common.json || format_.brief);
  }

  Result<void> parse_options() {
    // Of ip(8), -b alone reads a file of commands and -r alone resolves names.
    if (brief_ == 1)
      return usage_error("ip: -b and -r are known as -br only", "--brief is the same");
    format_.brief |= brief_ != 0;
    if (statistics_ > 1) return usage_error("ip: -s -s is not known: errors are not read");
    format_.statistics = statistics_ != 0;
    if (family_ == "inet") {
      ipv4_ = true;
    } else if (family_ == "inet6") {
      ipv6_ = true;
    } else if (family_ == "link") {
      format_.addresses = false;
    } else if (!family_.empty()) {
      return usage_error("ip: unknown family '" + family_ + "'", "families: inet inet6 link");
    }
    return {};
  }

  Result<void> parse_words() {
    std::size_t at = 0;
    const std::string what = words_.empty() ? "address" : words_[at++];
    const bool link = std::string_view("link").starts_with(what);
    const bool address = std::string_view("address").starts_with(what) || what == "addr";
    if (what.empty() || (!link && !address)) {
      return usage_error("ip: '" + what + "' is not addr or link");
    }
    format_.addresses = format_.addresses && address;
    if (at < words_.size() && is_show(words_[at])) ++at;
    while (at < words_.size()) {
      VMSIGHT_TRY_VOID(parse_selector(at));
    }
    return {};
  }

  static bool is_show(std::string_view word) {
    return word == "show" || word == "sh" || word == "list" || word == "lst" || word == "ls";
  }

  /// The word at `at`, and its value if it takes one.
  Result<void> parse_selector(std::size_t& at) {
    const std::string word = words_[at++];
    if (word == "up") {
      up_ = true;
      return {};
    }
    const bool of_address = is_one_of({"permanent", "dynamic", "primary", "secondary", "temporary",
                                       "tentative", "deprecated", "dadfailed"},
                                      word);
    if (of_address && format_.addresses) {
      flags_.push_back(word);
      return {};
    }
    const bool takes_value = is_one_of({"dev", "master", "type", "group"}, word) ||
                             (format_.addresses && is_one_of({"scope", "to", "label"}, word));
    if (takes_value) return parse_value(word, at);
    if (is_one_of({"add", "del", "delete", "set", "change", "replace", "flush", "save", "restore",
                   "vrf", "nomaster", "proto", "xstats", "afstats", "property"},
                  word) ||
        of_address || is_one_of({"scope", "to", "label"}, word)) {
      return usage_error("ip: '" + word + "' is not known here", "`vmsight ip --help` has what is");
    }
    devices_.push_back(word);
    return {};
  }

  Result<void> parse_value(const std::string& word, std::size_t& at) {
    if (at == words_.size()) return usage_error("ip: '" + word + "' needs a value");
    const std::string value = words_[at++];
    if (word == "dev") devices_.push_back(value);
    if (word == "master") master_ = value;
    if (word == "type") type_ = value;
    if (word == "group") {
      VMSIGHT_TRY(group_, parse_group(value));
    }
    if (word == "label") label_ = value;
    if (word == "to") {
      VMSIGHT_TRY(to_, parse_prefix(value));
    }
    if (word == "scope") {
      if (!is_one_of({"global", "site", "link", "host", "nowhere"}, value)) {
        return usage_error("ip: unknown scope '" + value + "'",
                           "scopes: global site link host nowhere");
      }
      scope_ = value;
    }
    return {};
  }

  /// In any base, as ip(8) reads it.
  static Result<std::uint32_t> parse_group(const std::string& text) {
    if (text == "default") return 0U;
    char* end = nullptr;
    const unsigned long number = std::strtoul(text.c_str(), &end, 0);
    const bool good = !text.empty() && text[0] != '-' && *end == '\0' && number <= UINT32_MAX;
    if (good) return static_cast<std::uint32_t>(number);
    return usage_error("ip: '" + text + "' is no group",
                       "a number, or default; other names are in the guest's files");
  }

  static bool is_one_of(std::initializer_list<std::string_view> words, std::string_view word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  }

  bool wanted_device(const NetDevice& device) const {
    const auto named = [&](const std::string& name) {
      return device.name == name || has_word(device.alternative_names, name);
    };
    if (!devices_.empty() && std::none_of(devices_.begin(), devices_.end(), named)) return false;
    if (up_ && !has_word(device.flags, "UP")) return false;
    if (!master_.empty() && device.master != master_) return false;
    if (!type_.empty() && device.kind != type_) return false;
    return !group_ || *group_ == device.group;
  }

  bool wanted_address(const NetDevice& device, const NetAddress& address) const {
    const bool both = ipv4_ == ipv6_;
    if (!both && (address.family == "inet") != ipv4_) return false;
    if (!scope_.empty() && address.scope != scope_) return false;
    if (to_ && !is_within(address, *to_)) return false;
    const std::string_view label = address.label.empty() ? device.name : address.label;
    if (!label_.empty() && !matches(label_, label)) return false;
    const bool lesser =
        has_word(address.flags, "secondary") || has_word(address.flags, "temporary");
    return std::all_of(flags_.begin(), flags_.end(), [&](const std::string& flag) {
      if (flag == "permanent") return !has_word(address.flags, "dynamic");
      if (flag == "primary") return !lesser;
      if (flag == "secondary" || flag == "temporary") return lesser;
      return has_word(address.flags, flag);
    });
  }

  /// As ip(8): a device that has addresses, but none that is asked for, is left out; one that has
  /// none at all, if a family is asked for.
  bool keep_addresses(NetDevice& device) const {
    if (!format_.addresses) return true;
    const bool had_none = device.addresses.empty();
    std::erase_if(device.addresses,
                  [&](const NetAddress& address) { return !wanted_address(device, address); });
    for (const auto& [family, list] :
         {std::pair("inet", &device.ipv4), std::pair("inet6", &device.ipv6)}) {
      std::erase_if(*list, [&, family = family](std::string_view text) {
        return std::none_of(device.addresses.begin(), device.addresses.end(),
                            [&](const NetAddress& address) {
                              return address.family == family &&
                                     text == fmt::format("{}/{}", address.local, address.prefix);
                            });
      });
    }
    const bool any_will_do = ipv4_ == ipv6_ && !to_ && label_.empty();
    return !device.addresses.empty() || (had_none && any_will_do);
  }

  Result<void> filter(State& state) {
    format_.down = devices_that_are_down(state);
    format_.namespaces = network_namespace_names(state);
    std::optional<std::uint64_t> netns;
    if (!netns_.empty()) {
      VMSIGHT_TRY(netns, find_network_namespace(state, netns_));
    }
    std::erase_if(state.net_devices, [&](const NetDevice& device) {
      return !wanted_device(device) || (netns && device.netns != *netns);
    });
    if (!devices_.empty() && state.net_devices.empty()) {
      return Error{.code = ErrorCode::not_found,
                   .message = "no network device " + devices_.front() + " in the guest",
                   .hint = "`vmsight ip VM -br` lists them"};
    }
    std::erase_if(state.net_devices, [this](NetDevice& device) { return !keep_addresses(device); });
    return {};
  }

  std::vector<std::string> words_, devices_, flags_;
  bool ipv4_ = false, ipv6_ = false, up_ = false;
  int brief_ = 0, statistics_ = 0;
  std::string family_, netns_, master_, type_, scope_, label_;
  std::optional<std::uint32_t> group_;
  std::optional<AddressPrefix> to_;
  IpFormat format_;
};

}  // namespace

extern const VerbInfo ip_verb{
    .name = "ip",
    .group = "What is in the guest",
    .arguments = "VM [addr|link [show] [DEVICE...]] [options]",
    .summary = "Network devices and addresses of all network namespaces",
    .examples =
        "  vmsight ip web1 addr -4 -br\n"
        "  vmsight ip web1 link show type veth -s\n",
    .shows_records = true,
    .make = make_verb<Ip>,
};

}  // namespace vmsight
