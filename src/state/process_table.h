// All processes of one view: the list, each process, and the proof that they did not change
// while they were read.
//
//   walk the list -> read each process -> read all proofs again in one batch
//                                      -> what changed is read anew, and proven on its own
//
// So a live guest costs one more pass over a few hundred words; only processes that really
// changed cost more. What does not hold still for `attempts` readings is marked torn.
#pragma once

#include "state/change_counts.h"
#include "state/processes.h"

namespace vmsight {

class ProcessTable {
 public:
  ProcessTable(const ProcessesReader& processes, Paths& paths, Shared& shared)
      : processes_(processes), paths_(paths), shared_(shared) {}

  /// Appends everything to context.state; `parts` as in ProcessContext, `counts` from before the
  /// view began. Errors are those of the memory (vm_gone, os).
  Result<void> read(Context& context, unsigned parts, const ChangeCounts& counts);

  /// Objects that had to be read again.
  std::uint64_t retries() const { return retries_; }

 private:
  /// Where the records of one process begin or end in the vectors of the state.
  struct Mark {
    std::size_t processes = 0, threads = 0, files = 0, maps = 0, sockets = 0, problems = 0;
  };
  /// One process: which, and where its records are.
  struct Entry {
    TaskIdentity identity;
    Mark begin{}, end{};
    bool gone = false;      // it is no longer this process, or no process at all
    bool recycled = false;  // ... and another one is there
    bool suspect = false;   // its first reading failed
  };

  void walk(Context& context);
  void read_found(ProcessContext& process);
  bool read_once(ProcessContext& process, Entry& entry);
  void read_first(ProcessContext& process, Entry& entry);
  Result<void> read_again(ProcessContext& process, Entry& entry);
  Result<void> verify(ProcessContext& process, const ChangeCounts& counts);
  Result<bool> renamed(ProcessContext& process, const ChangeCounts& counts);
  Result<void> find_missed(ProcessContext& process);
  std::string fault_told(const Reader& reader) const;
  void mark_torn(ProcessContext& process, const Entry& entry, std::string why);
  void in_order(Context& context);

  static void count(const Entry& entry, Inconsistencies& into);
  static Mark mark(const Context& context);
  static void roll_back(Context& context, const Mark& to);

  const ProcessesReader& processes_;
  Paths& paths_;
  Shared& shared_;
  Proofs proofs_;
  std::vector<TaskIdentity> found_;
  std::vector<Entry> entries_;
  bool disordered_ = false;  // some records were appended anew, behind those of others
  std::uint64_t retries_ = 0;
};

}  // namespace vmsight
