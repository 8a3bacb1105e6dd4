#include "study/resume.h"

#include <fcntl.h>
#include <cerrno>
#include <fstream>

namespace vmsight {

Result<Resume> Resume::open(const std::string& path, const VmInfo& info,
                            const MeasureOptions& options) {
  Resume resume;
  if (path.empty()) return resume;
  resume.path_ = path;
  resume.key_ = {{"pid", info.pid},
                 {"start_time", info.start_time},
                 {"seconds", options.seconds},
                 {"rounds", options.rounds}};
  std::ifstream lines(path);
  for (std::string line; std::getline(lines, line);) resume.learn(line);
  resume.file_ = UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!resume.file_) return os_error(errno, "open " + path);
  // The last line may have been cut short: ours must not become its end.
  if (::write(resume.file_.get(), "\n", 1) != 1) return os_error(errno, "write " + path);
  return resume;
}

void Resume::learn(std::string_view line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("key") || json["key"] != key_) return;
  if (auto measured = measurement_from(json.value("measurement", Json()))) {
    known_.push_back(*std::move(measured));
  }
}

const Measurement* Resume::find(std::string_view technique, const Pace& pace) const {
  for (const Measurement& measured : known_) {
    if (measured.technique == technique && measured.wanted_rate == pace.rate &&
        measured.cpu == pace.cpu) {
      return &measured;
    }
  }
  return nullptr;
}

Result<void> Resume::keep(const Measurement& measured) {
  if (!file_ || !measured.error.empty() ||
      find(measured.technique, {measured.wanted_rate, measured.cpu}))
    return {};
  const std::string line = dump({{"key", key_}, {"measurement", to_json(measured)}}) + "\n";
  if (::write(file_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return os_error(errno, "write " + path_);
  }
  return {};
}

}  // namespace vmsight
