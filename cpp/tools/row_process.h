// One row of a bench in a process of its own, so that a crash, a hang or a runtime's memory is that row's alone.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>

#include "base/json_text.h"

namespace edgerecall::device {

/// Answers one command. Runs in the row's process.
using Answer = std::function<Json(const Json& command)>;

/// The process has ended or does not answer; says how.
class RowLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class RowProcess {
 public:
  /// `make` is called in the new process, for the function that answers there. No thread may run here yet.
  explicit RowProcess(const std::function<Answer()>& make);
  ~RowProcess();
  RowProcess(const RowProcess&) = delete;
  RowProcess& operator=(const RowProcess&) = delete;

  /// An answer, or `{"error": kind, "message": text}` where the row's process threw. Throws RowLost.
  Json ask(const Json& command, double timeout_s);

 private:
  std::string obituary();

  pid_t child_ = -1;
  int to_child_ = -1, from_child_ = -1;
};

}  // namespace edgerecall::device
