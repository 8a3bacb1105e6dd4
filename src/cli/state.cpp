// vmsight state VM: everything that is in the guest, once.
#include "cli/attach.h"
#include "render/summary.h"

namespace vmsight {
namespace {

class StateAll : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_flag("--one-line", one_line_, "with --json: the document on one line")
        ->group(format_group);
    app.add_flag("--threads", threads_, "with --json: each thread too")->group(format_group);
    app.add_option("--repeat", repeat_, "read it N times; JSON documents then take a line each")
        ->group(format_group)
        ->type_name("N")
        ->check(positive());
  }

  Result<void> run(Session& session) override {
    session.common.reads_states = true;
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      VMSIGHT_TRY(auto reader, state_reader_of(guest));
      State state;
      const unsigned parts = part_all | (threads_ ? part_threads : 0U);
      for (unsigned turn = 0; turn < repeat_; ++turn) {
        VMSIGHT_TRY_VOID(reader->read({.parts = parts}, state));
        if (session.common.json) {
          write_document(session.out, summary_of(guest), state,
                         {.parts = parts, .one_line = one_line_ || repeat_ > 1});
        } else {
          print_summary(session.out, summary_of(guest), state);
        }
      }
      return {};
    });
  }

 private:
  bool one_line_ = false, threads_ = false;
  unsigned repeat_ = 1;
};

}  // namespace

extern const VerbInfo state_verb{
    .name = "state",
    .group = "What is in the guest",
    .arguments = "VM [options]",
    .summary = "The whole state: a summary, or with --json one document",
    .examples =
        "  vmsight state web1\n"
        "  vmsight state web1 --json --repeat 100 > states.jsonl\n"
        "  vmsight state web1 --json | jq '.sockets[] | select(.state == \"LISTEN\")'\n",
    .make = make_verb<StateAll>,
};

}  // namespace vmsight
