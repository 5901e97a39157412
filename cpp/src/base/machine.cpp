#include "edgerecall/machine.h"

#include <dirent.h>
#include <sched.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "edgerecall/error.h"

namespace edgerecall {
namespace {

[[maybe_unused]] constexpr std::size_t kPage = std::size_t{1} << 21, kMany = 2 * kPage;  // bytes of a large page

/// The first line of a file; empty when it cannot be read.
std::string first_line(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "r"), std::fclose);
  char line[256] = "";
  if (file == nullptr || std::fgets(line, sizeof(line), file.get()) == nullptr) return "";
  line[std::strcspn(line, "\r\n")] = '\0';
  return line;
}

/// The value of `field:` in a file of such lines; empty when there is none.
std::string value_in(const char* path, const char* field) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "r"), std::fclose);
  char line[512];
  while (file != nullptr && std::fgets(line, sizeof(line), file.get()) != nullptr) {
    const char* colon = std::strchr(line, ':');
    if (colon == nullptr || std::strncmp(line, field, std::strlen(field)) != 0) continue;
    const char* value = colon + 1 + std::strspn(colon + 1, " \t");
    return {value, std::strcspn(value, "\r\n")};
  }
  return "";
}

std::string cpu_file(int cpu, const char* name) {
  return first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/" + name);
}

/// Larger is faster; 0 where the system does not tell.
long capacity_of(int cpu) {
  for (const char* name : {"cpu_capacity", "cpufreq/cpuinfo_max_freq"})
    if (const std::string text = cpu_file(cpu, name); !text.empty()) return std::strtol(text.c_str(), nullptr, 10);
  return 0;
}

std::vector<int> parse_cpus(const std::string& text) {
  const auto fail = [&] {
    throw InputError("cpus: expected all, big, little or a list such as 0,2-3, got '" + text + "'");
  };
  std::vector<int> cpus;
  const char* at = text.c_str();
  while (true) {
    char* end = nullptr;
    const auto number = [&] {
      if (*at < '0' || *at > '9') fail();
      const long value = std::strtol(at, &end, 10);
      if (value >= CPU_SETSIZE) fail();
      at = end;
      return static_cast<int>(value);
    };
    const int first = number();
    int last = first;
    if (*at == '-') {
      ++at;
      last = number();
    }
    if (last < first) fail();
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (*at == '\0') return cpus;
    if (*at++ != ',') fail();
  }
}

}  // namespace

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  return cpus;
}

std::vector<int> cpus_of(const std::string& cluster) {
  const std::vector<int> usable = usable_cpus();
  if (cluster == "all") return usable;
  std::vector<int> chosen;
  if (cluster == "big" || cluster == "little") {
    std::vector<long> capacities;
    for (const int cpu : usable) capacities.push_back(capacity_of(cpu));
    const auto [least, most] = std::minmax_element(capacities.begin(), capacities.end());
    const long wanted = cluster == "big" ? *most : *least;
    for (std::size_t index = 0; index < usable.size(); ++index)
      if (capacities[index] == wanted) chosen.push_back(usable[index]);
    return chosen;
  }
  for (const int cpu : parse_cpus(cluster)) {
    if (std::find(usable.begin(), usable.end(), cpu) == usable.end())
      throw InputError("cpus: CPU " + std::to_string(cpu) + " is not there or not to be used; there are " +
                       shown(usable));
    chosen.push_back(cpu);
  }
  return chosen;
}

void bind_to(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0)
    throw InputError("cannot bind to CPU " + shown(cpus) + ": " + std::strerror(errno));
}

std::string shown(const std::vector<int>& cpus) {
  std::string text;
  for (std::size_t begin = 0; begin < cpus.size();) {
    std::size_t end = begin + 1;
    while (end < cpus.size() && cpus[end] == cpus[end - 1] + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(cpus[begin]);
    if (end - begin > 1) text += "-" + std::to_string(cpus[end - 1]);
    begin = end;
  }
  return text;
}

std::map<std::string, double> temperatures_c() {
  const std::string root = "/sys/class/thermal";
  std::map<std::string, double> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(root.c_str()), closedir);
  while (const dirent* entry = listing ? readdir(listing.get()) : nullptr) {
    const std::string zone = root + "/" + entry->d_name;
    if (std::strncmp(entry->d_name, "thermal_zone", 12) != 0) continue;
    const std::string text = first_line(zone + "/temp");
    if (text.empty()) continue;
    const double value = std::strtod(text.c_str(), nullptr);
    const std::string type = first_line(zone + "/type");
    // The kernel's unit is a thousandth of a degree; some old Android kernels gave degrees.
    found[(type.empty() ? "zone" : type) + " " + (entry->d_name + 12)] =
        value > 1000 || value < -1000 ? value / 1000 : value;
  }
  return found;
}

std::map<int, double> frequencies_mhz(const std::vector<int>& cpus) {
  std::map<int, double> found;
  for (const int cpu : cpus)
    if (const std::string text = cpu_file(cpu, "cpufreq/scaling_cur_freq"); !text.empty())
      found[cpu] = std::strtod(text.c_str(), nullptr) / 1000;
  return found;
}

std::optional<double> memory_mb(const char* field) {
  const std::string text = value_in("/proc/self/status", field);
  if (text.empty()) return std::nullopt;
  return std::strtod(text.c_str(), nullptr) * 1024 / 1e6;
}

std::string machine_model() {
  const std::string board = first_line("/proc/device-tree/model");
  if (!board.empty()) return board;
  for (const char* field : {"Hardware", "model name", "Model"})
    if (const std::string text = value_in("/proc/cpuinfo", field); !text.empty()) return text;
  return "unknown";
}

void* allocate_large(std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  if (bytes >= kMany) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, kPage, bytes) != 0) throw std::bad_alloc();
    static_cast<void>(::madvise(memory, bytes / kPage * kPage, MADV_HUGEPAGE));  // or its pages stay small
    return memory;
  }
#endif
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void free_large(void* memory) { std::free(memory); }

}  // namespace edgerecall
