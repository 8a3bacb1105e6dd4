// vmsight sym VM NAME|ADDR|GLOB: symbols of the kernel and its modules.
#include "cli/address_argument.h"
#include "cli/attach.h"
#include "cli/filters.h"
#include "render/escape.h"

namespace vmsight {
namespace {

Json symbol_json(const Symbol& symbol) {
  return {{"name", json_text(symbol.name)},
          {"type", std::string(1, symbol.type)},
          {"address", json_address(symbol.address.raw())},
          {"module", symbol.module.empty() ? Json(nullptr) : json_text(symbol.module)}};
}

/// A line as in /proc/kallsyms.
void print_symbol(Output& out, const Symbol& symbol) {
  out.print("{:016x} {} {}", symbol.address.raw(), for_terminal({&symbol.type, 1}),
            for_terminal(symbol.name));
  if (!symbol.module.empty()) out.print("\t[{}]", for_terminal(symbol.module));
  out.write("\n");
}

class Sym : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("SYMBOL", words_, "names, patterns (* and ? match) or addresses")
        ->group("Arguments");
    app.add_option("-m,--module", modules_, "only symbols of these modules")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',');
  }

  Result<void> run(Session& session) override {
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      std::vector<std::string> patterns;
      Json list = Json::array();
      for (const std::string& word : words_) {
        const auto address = parse_unsigned(word);
        if (!address)
          patterns.push_back(word);
        else
          VMSIGHT_TRY_VOID(locate(session, *guest.kernel, GuestVirt(*address), list));
      }
      if (words_.empty() || !patterns.empty()) {
        VMSIGHT_TRY_VOID(search(session, *guest.kernel, patterns, list));
      }
      if (session.common.json) {
        session.out.print("{}\n", dump({{"schema", "vmsight.sym/1"}, {"symbols", list}}));
      }
      return {};
    });
  }

 private:
  static Result<void> locate(Session& session, Kernel& kernel, GuestVirt address, Json& list) {
    const auto place = kernel.locate(address);
    if (!place) {
      return Error{.code = ErrorCode::not_found,
                   .message = fmt::format("{} is in no symbol of the guest's kernel", address)};
    }
    if (session.common.json) {
      list.push_back({{"name", json_text(place->name)},
                      {"type", nullptr},
                      {"address", json_address((address - place->offset).raw())},
                      {"module", place->module.empty() ? Json(nullptr) : json_text(place->module)},
                      {"offset", place->offset}});
    } else {
      session.out.print("{:016x} {}+{:#x}", address.raw(), for_terminal(place->name),
                        place->offset);
      if (!place->module.empty()) session.out.print(" [{}]", for_terminal(place->module));
      session.out.write("\n");
    }
    return {};
  }

  Result<void> search(Session& session, Kernel& kernel, const std::vector<std::string>& patterns,
                      Json& list) const {
    VMSIGHT_TRY(const auto symbols, kernel.symbols());
    bool found = false;
    for (const Symbol& symbol : symbols) {
      if (!matches_any(patterns, symbol.name) || !among(modules_, symbol.module)) continue;
      found = true;
      if (session.common.json)
        list.push_back(symbol_json(symbol));
      else
        print_symbol(session.out, symbol);
    }
    if (found) return {};
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("no symbol matches '{}'", fmt::join(patterns, "' '")),
                 .hint = "patterns match whole names: write '*name*'"};
  }

  std::vector<std::string> words_, modules_;
};

}  // namespace

extern const VerbInfo sym_verb{
    .name = "sym",
    .group = "Memory, symbols and types",
    .arguments = "VM [NAME|PATTERN|ADDR]... [options]",
    .summary = "Symbols of the kernel and its modules, by name, pattern or address",
    .examples =
        "  vmsight sym web1 init_task 'tcp_v4_*'\n"
        "  vmsight sym web1 0xffffffff81234567\n",
    .make = make_verb<Sym>,
};

}  // namespace vmsight
