// vmsight.h: states and their records.
#include <cstdlib>

#include "library/c_errors.h"
#include "library/c_guest.h"
#include "render/json.h"
#include "render/json_writer.h"
#include "state/records.h"

using namespace vmsight;

struct vmsight_state {
  VmSummary vm;
  std::string accelerator;  // which vm.accelerator looks at
  unsigned parts = 0;
  State state;
  std::vector<std::string> problems;
};

/// The records of one kind, one after the other.
struct vmsight_records {
  virtual ~vmsight_records() = default;
  virtual bool next() = 0;
  /// False if the record has no such field; nothing was put then.
  virtual bool put(std::string_view field, ValueSink& sink) const = 0;
  virtual bool put_all(ValueSink& sink) const = 0;

  std::string text;  // what the last value was
};

namespace {

/// One value: as what it is, and as JSON.
class OneValue final : public ValueSink {
 public:
  void null() override {
    at_top(VMSIGHT_NULL);
    json_.null();
  }
  void boolean(bool value) override {
    if (at_top(VMSIGHT_BOOLEAN)) value_.number.as_boolean = value ? 1 : 0;
    json_.boolean(value);
  }
  void number(std::uint64_t value) override {
    if (at_top(VMSIGHT_UNSIGNED)) value_.number.as_unsigned = value;
    json_.number(value);
  }
  void number(std::int64_t value) override {
    if (at_top(VMSIGHT_SIGNED)) value_.number.as_signed = value;
    json_.number(value);
  }
  void number(double value) override {
    if (at_top(VMSIGHT_REAL)) value_.number.as_real = value;
    json_.number(value);
  }
  void text(std::string_view bytes) override {
    if (at_top(VMSIGHT_TEXT)) text_ = bytes;
    json_.text(bytes);
  }
  void begin_list() override {
    at_top(VMSIGHT_LIST);
    ++depth_;
    json_.begin_list();
  }
  void end_list() override {
    --depth_;
    json_.end_list();
  }
  void begin_object() override {
    at_top(VMSIGHT_OBJECT);
    ++depth_;
    json_.begin_object();
  }
  void key(std::string_view name) override { json_.key(name); }
  void end_object() override {
    --depth_;
    json_.end_object();
  }

  /// `text` keeps what the value points to.
  vmsight_value give(std::string& text) const {
    const bool structured = value_.type == VMSIGHT_LIST || value_.type == VMSIGHT_OBJECT;
    text = structured ? std::string(json_.written()) : text_;
    vmsight_value value = value_;
    value.text = text.c_str();
    value.text_bytes = text.size();
    return value;
  }

 private:
  bool at_top(vmsight_type type) {
    if (depth_ == 0) value_.type = type;
    return depth_ == 0;
  }

  vmsight_value value_{};
  std::string text_;
  JsonWriter json_;
  unsigned depth_ = 0;
};

template <typename Record>
class Records final : public vmsight_records {
 public:
  explicit Records(const State& state) : records_(state.*kind_of<Record>().records) {}
  bool next() override {
    if (at_ <= records_.size()) ++at_;
    return at_ <= records_.size();
  }
  bool put(std::string_view name, ValueSink& sink) const override {
    for (const Field<Record>& field : kind_of<Record>().fields) {
      if (field.name != name) continue;
      const Record* record = current();
      if (record == nullptr || (field.has != nullptr && !field.has(*record))) return false;
      field.put(*record, sink);
      return true;
    }
    return false;
  }
  bool put_all(ValueSink& sink) const override {
    const Record* record = current();
    if (record != nullptr) put_fields(kind_of<Record>().fields, *record, sink);
    return record != nullptr;
  }

 private:
  const Record* current() const {
    return at_ == 0 || at_ > records_.size() ? nullptr : &records_[at_ - 1];
  }

  const std::vector<Record>& records_;
  std::size_t at_ = 0;  // one more than the index
};

Error no_kind(std::string_view kind) {
  return {.code = ErrorCode::usage,
          .message = fmt::format("there are no records called '{}'", kind),
          .hint = "vmsight_kind() tells the kinds"};
}

/// All that are named in "processes,sockets".
Result<unsigned> parts_of(std::string_view words) {
  unsigned parts = 0;
  while (!words.empty()) {
    const std::string_view word = words.substr(0, words.find(','));
    words.remove_prefix(std::min(words.size(), word.size() + 1));
    unsigned part = word == "os" ? unsigned{part_os} : 0;
    each_kind([&](const auto& kind) {
      if (kind.key == word) part = kind.part;
    });
    if (part == 0) return no_kind(word);
    parts |= part;
  }
  return parts;
}

Result<vmsight_state*> read(vmsight_guest& guest, const vmsight_state_options& options) {
  if (guest.view) {
    return Error{.code = ErrorCode::usage,
                 .message = "read state: a view has begun; a state is a view of its own",
                 .hint = "vmsight_end_view() first"};
  }
  StateOptions wanted{.parts = part_all, .residency = options.residency != 0};
  if (options.parts != nullptr) {
    VMSIGHT_TRY(wanted.parts, parts_of(options.parts));
  }
  if (options.pid != 0) wanted.pid = options.pid;
  Guest& of = guest.guest;
  if (!guest.reader) {
    VMSIGHT_TRY(guest.reader, state_reader_of(of));
  }
  auto made = std::make_unique<vmsight_state>();
  if (auto read = guest.reader->read(wanted, made->state); !read)
    return of.explain(std::move(read).error());
  made->vm = summary_of(of);
  made->accelerator = made->vm.accelerator;
  if (made->vm.accelerator.data() != nullptr) made->vm.accelerator = made->accelerator;
  made->parts = wanted.parts;
  for (const auto& problems : {made->vm.problems, made->state.problems})
    for (const Problem& problem : problems)
      made->problems.push_back(fmt::format("{}: {}", problem.where, problem.what));
  return made.release();
}

}  // namespace

vmsight_state* vmsight_read_state(vmsight_guest* guest, const vmsight_state_options* options,
                                  vmsight_error* error) {
  return c::guarded(error, static_cast<vmsight_state*>(nullptr), [&]() -> Result<vmsight_state*> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY(const auto taken, c::take(options));
    return read(*guest, taken);
  });
}

void vmsight_free_state(vmsight_state* state) { delete state; }

char* vmsight_state_json(const vmsight_state* state, vmsight_error* error) {
  return c::guarded(error, static_cast<char*>(nullptr), [&]() -> Result<char*> {
    VMSIGHT_TRY_VOID(c::needed(state, "state"));
    Output out;
    write_document(out, state->vm, state->state, {.parts = state->parts});
    VMSIGHT_TRY_VOID(out.finish());
    return c::text(out.text());
  });
}

const char* vmsight_state_problem(const vmsight_state* state, std::size_t index) {
  return state != nullptr && index < state->problems.size() ? state->problems[index].c_str()
                                                            : nullptr;
}

const char* vmsight_kind(std::size_t index) {
  const char* name = nullptr;
  each_kind([&, left = index](const auto& kind) mutable {
    if (left-- == 0) name = kind.key.data();  // a literal
  });
  return name;
}

int vmsight_field_of(const char* kind, std::size_t index, vmsight_field* into,
                     vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(kind, "kind"));
    Result<int> told = no_kind(kind);
    each_kind([&]<typename Record>(const Kind<Record>& each) {
      if (each.key != kind) return;
      told = 0;
      if (index >= each.fields.size()) return;
      const Field<Record>& field = each.fields[index];
      told = c::give(into, {.size = 0,
                            .name = field.name.data(),  // literals
                            .unit = field.unit.data(),
                            .meaning = field.meaning.data(),
                            .identifies = field.order != nullptr ? 1 : 0,
                            .changes = field.changed != nullptr ? 1 : 0});
      if (told) told = 1;
    });
    return told;
  });
}

vmsight_records* vmsight_records_of(const vmsight_state* state, const char* kind,
                                    vmsight_error* error) {
  return c::guarded(error, static_cast<vmsight_records*>(nullptr),
                    [&]() -> Result<vmsight_records*> {
                      VMSIGHT_TRY_VOID(c::needed(state, "state"));
                      VMSIGHT_TRY_VOID(c::needed(kind, "kind"));
                      std::unique_ptr<vmsight_records> made;
                      each_kind([&]<typename Record>(const Kind<Record>& each) {
                        if (each.key == kind)
                          made = std::make_unique<Records<Record>>(state->state);
                      });
                      if (!made) return no_kind(kind);
                      return made.release();
                    });
}

int vmsight_next_record(vmsight_records* records) {
  return records != nullptr && records->next() ? 1 : 0;
}

int vmsight_get(vmsight_records* records, const char* field, vmsight_value* value,
                vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(records, "records"));
    VMSIGHT_TRY_VOID(c::needed(field, "field"));
    OneValue one;
    if (!records->put(field, one)) {
      return Error{.code = ErrorCode::not_found,
                   .message = fmt::format("the record has no field '{}'", field),
                   .hint =
                       "vmsight_field_of() tells the fields; without a vmsight_next_record() there "
                       "is no record"};
    }
    return c::give(value, one.give(records->text));
  });
}

const char* vmsight_record_json(vmsight_records* records, vmsight_error* error) {
  return c::guarded(error, static_cast<const char*>(nullptr), [&]() -> Result<const char*> {
    VMSIGHT_TRY_VOID(c::needed(records, "records"));
    JsonWriter writer;
    if (!records->put_all(writer))
      return Error{.code = ErrorCode::usage, .message = "there is no record here"};
    records->text = writer.written();
    return records->text.c_str();
  });
}

void vmsight_free_records(vmsight_records* records) { delete records; }
