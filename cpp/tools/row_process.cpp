#include "row_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "clock.h"
#include "edgerecall/error.h"

namespace edgerecall::device {
namespace {

double now_s() { return static_cast<double>(now_ns()) / 1e9; }

/// All of `size` bytes, or as many as come before the end or, where there is one, the deadline.
std::size_t read_all(int pipe, void* data, std::size_t size, double deadline_s, bool& late) {
  std::size_t used = 0;
  late = false;
  while (used < size) {
    if (deadline_s > 0) {
      pollfd waited{pipe, POLLIN, 0};
      const double left_ms = (deadline_s - now_s()) * 1000;
      const int ready = left_ms > 0 ? poll(&waited, 1, static_cast<int>(left_ms) + 1) : 0;
      if (ready < 0 && errno == EINTR) continue;
      if (ready == 0) {
        late = true;
        return used;
      }
    }
    const ssize_t got = read(pipe, static_cast<char*>(data) + used, size - used);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    used += static_cast<std::size_t>(got);
  }
  return used;
}

bool write_all(int pipe, const void* data, std::size_t size) {
  std::size_t used = 0;
  while (used < size) {
    const ssize_t put = write(pipe, static_cast<const char*>(data) + used, size - used);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    used += static_cast<std::size_t>(put);
  }
  return true;
}

bool send(int pipe, const Json& message) {
  const std::string text = to_text(message);
  const auto size = static_cast<std::uint32_t>(text.size());
  return write_all(pipe, &size, sizeof(size)) && write_all(pipe, text.data(), text.size());
}

bool receive(int pipe, Json& message, double deadline_s, bool& late) {
  std::uint32_t size = 0;
  if (read_all(pipe, &size, sizeof(size), deadline_s, late) != sizeof(size)) return false;
  std::string text(size, '\0');
  if (read_all(pipe, text.data(), size, deadline_s, late) != size) return false;
  message = parse_json(text);
  return !message.is_discarded();
}

Json answered(const Answer& answer, const Json& command) {
  const auto error = [](const char* kind, const char* text) { return Json{{"error", kind}, {"message", text}}; };
  try {
    return answer(command);
  } catch (const InputError& problem) {
    return error("missing", problem.what());
  } catch (const Unavailable& problem) {
    return error("missing", problem.what());
  } catch (const std::exception& problem) {
    return error("failed", problem.what());
  }
}

[[noreturn]] void serve(int commands, int answers, const std::function<Answer()>& make) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(STDERR_FILENO, STDOUT_FILENO);  // what runtimes print is no result
  Answer answer;
  try {
    answer = make();
  } catch (const std::exception& problem) {  // unwinding further would end the other rows' processes
    const std::string text = problem.what();
    answer = [text](const Json&) -> Json { throw RuntimeFailed(text); };
  }
  Json command;
  bool late = false;
  while (receive(commands, command, 0, late))
    if (!send(answers, answered(answer, command))) break;
  _exit(0);  // some runtimes hang or crash in their exit handlers
}

}  // namespace

RowProcess::RowProcess(const std::function<Answer()>& make) {
  int commands[2], answers[2];
  if (pipe2(commands, O_CLOEXEC) != 0 || pipe2(answers, O_CLOEXEC) != 0)
    throw InputError(std::string("cannot make a pipe: ") + std::strerror(errno));
  std::signal(SIGPIPE, SIG_IGN);
  std::fflush(nullptr);
  child_ = fork();
  if (child_ < 0) throw InputError(std::string("cannot start a process: ") + std::strerror(errno));
  if (child_ == 0) {
    close(commands[1]);
    close(answers[0]);
    serve(commands[0], answers[1], make);
  }
  close(commands[0]);
  close(answers[1]);
  to_child_ = commands[1];
  from_child_ = answers[0];
}

RowProcess::~RowProcess() {
  close(to_child_);
  close(from_child_);
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
}

Json RowProcess::ask(const Json& command, double timeout_s) {
  if (child_ < 0) throw RowLost("its process has ended");
  Json message;
  bool late = false;
  if (!send(to_child_, command) || !receive(from_child_, message, now_s() + timeout_s, late)) {
    if (!late) throw RowLost(obituary());
    char text[96];
    std::snprintf(text, sizeof(text), "no answer within %g s; its process was ended", timeout_s);
    throw RowLost(text);
  }
  return message;
}

std::string RowProcess::obituary() {
  int status = 0;
  waitpid(child_, &status, 0);
  child_ = -1;
  if (WIFSIGNALED(status)) return "its process was ended by signal " + std::to_string(WTERMSIG(status));
  return "its process ended with exit code " + std::to_string(WEXITSTATUS(status));
}

}  // namespace edgerecall::device
