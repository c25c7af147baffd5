// docs/robustness.md, part B 2.2: memory tables, logs, in-flight areas, ring parameters.
#include <fmt/format.h>
#include <unistd.h>

#include "ringway/base/notifier.h"
#include "ringway/check/hostile_inputs.h"

namespace ringway::check {
namespace {

constexpr uint64_t size = 1 << 20;
constexpr uint64_t top = ~uint64_t{0} - 4095;
constexpr uint64_t guest = Rig::guest_base.value;
constexpr uint64_t front_end = Rig::user_base.value;

struct WireRegion {
  uint64_t guest, size, user, offset;
};

Or<std::vector<UniqueFd>> files(size_t count) {
  std::vector<UniqueFd> fds;
  const SharedMemory memory = TRY(reach(SharedMemory::make({guest}, {front_end}, size), "memory"));
  for (size_t i = 0; i < count; ++i) fds.push_back(TRY(reach(memory.file(), "memory")));
  return fds;
}

Bytes table_of(const std::vector<WireRegion>& regions, uint32_t told) {
  Bytes bytes = payload(told, uint32_t{0});
  for (const WireRegion& region : regions) {
    const Bytes one = payload(region);
    bytes.insert(bytes.end(), one.begin(), one.end());
  }
  return bytes;
}

struct Table {
  const char* number;
  const char* what;
  std::vector<WireRegion> regions;
};

const std::vector<Table>& tables() {
  static const std::vector<Table> all = {
      {"H098", "a region of no bytes", {{guest, 0, front_end, 0}}},
      {"H100", "a region whose guest addresses wrap", {{top, size, front_end, 0}}},
      {"H100", "a region whose user addresses wrap", {{guest, size, top, 0}}},
      {"H100", "a region whose offset wraps", {{guest, size, front_end, top}}},
      {"H100", "a region of nearly 2^64 bytes", {{guest, top, front_end, 0}}},
      {"A.1.2.1", "a region that ends behind its file", {{guest, size * 16, front_end, 0}}},
      {"A.1.2.1", "a region that begins behind its file", {{guest, size, front_end, size * 2}}},
      {"H101", "a region at an offset that is no page", {{guest, 4096, front_end, 513}}},
      {"H103",
       "regions that overlap in guest addresses",
       {{guest, size, front_end, 0}, {guest + 4096, size, front_end + 8 * size, 0}}},
      {"H103",
       "regions that overlap in user addresses",
       {{guest, size, front_end, 0}, {guest + 8 * size, size, front_end + 4096, 0}}},
  };
  return all;
}

void add_tables(std::vector<HostileInput>& to) {
  for (const Table& table : tables()) {
    to.push_back({table.number, fmt::format("SET_MEM_TABLE: {}", table.what), [&table](Assault& a) -> Or<> {
                    const auto count = static_cast<uint32_t>(table.regions.size());
                    a.say(id<vhost::SetMemTable>, table_of(table.regions, count), TRY(files(count)));
                    return {};
                  }});
    if (table.regions.size() > 1) continue;
    to.push_back({table.number, fmt::format("ADD_MEM_REG: {}", table.what), [&table](Assault& a) -> Or<> {
                    a.say(id<vhost::AddMemReg>, payload(uint64_t{0}, table.regions[0]), TRY(files(1)));
                    return {};
                  }});
  }
  const WireRegion good{guest, size, front_end, 0};
  for (const uint32_t told : {0U, 2U, 9U, 0xffffffffU}) {
    to.push_back({"H097", fmt::format("SET_MEM_TABLE of one region that says it has {}", told),
                  [told, good](Assault& a) -> Or<> {
                    a.say(id<vhost::SetMemTable>, table_of({good}, told), TRY(files(1)));
                    return {};
                  }});
  }
  to.push_back({"N014", "SET_MEM_TABLE of 9 regions", [](Assault& a) -> Or<> {
                  std::vector<WireRegion> regions;
                  for (uint64_t i = 0; i < 9; ++i)
                    regions.push_back({guest + i * size, size, front_end + i * size, 0});
                  a.say(id<vhost::SetMemTable>, table_of(regions, 9), TRY(files(8)));
                  return {};
                }});
  to.push_back({"N092", "SET_MEM_TABLE of two regions with one file", [good](Assault& a) -> Or<> {
                  a.say(id<vhost::SetMemTable>,
                        table_of({good, {guest + 8 * size, size, front_end + 8 * size, 0}}, 2),
                        TRY(files(1)));
                  return {};
                }});
  to.push_back({"H110", "ADD_MEM_REG of the same region twice", [good](Assault& a) -> Or<> {
                  a.say(id<vhost::AddMemReg>, payload(uint64_t{0}, good), TRY(files(1)));
                  (void)a.wire.receive();
                  a.say(id<vhost::AddMemReg>, payload(uint64_t{0}, good), TRY(files(1)));
                  return {};
                }});
  to.push_back({"N121", "REM_MEM_REG of a region that is not there", [good](Assault& a) -> Or<> {
                  a.say(id<vhost::RemMemReg>, payload(uint64_t{0}, good));
                  return {};
                }});
  for (const uint64_t offset : {uint64_t{0}, top}) {
    to.push_back({"A.1.1.3", fmt::format("SET_LOG_BASE of 2^40 bytes from {:#x}", offset),
                  [offset](Assault& a) -> Or<> {
                    a.say(id<vhost::SetLogBase>, payload(uint64_t{1} << 40, offset), TRY(files(1)));
                    return {};
                  }});
  }
  to.push_back({"H133", "SET_INFLIGHT_FD for 65535 queues", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetInflightFd>,
                        payload(size, uint64_t{0}, uint16_t{0xffff}, uint16_t{0xffff}, uint32_t{0}),
                        TRY(files(1)));
                  return {};
                }});
  to.push_back({"H134", "SET_INFLIGHT_FD of an area behind its file", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetInflightFd>,
                        payload(size * 64, top, uint16_t{1}, uint16_t{64}, uint32_t{0}), TRY(files(1)));
                  return {};
                }});
}

struct State {
  const char* number;
  uint32_t request;
  uint32_t ring, value;
};

void add_rings(std::vector<HostileInput>& to) {
  std::vector<State> all;
  for (const uint32_t ring : {0xffU, 0x100U, 0x10000U, 0x7fffffffU, 0xffffffffU}) {
    for (const uint32_t request : {id<vhost::SetVringNum>, id<vhost::SetVringBase>, id<vhost::SetVringEnable>,
                                   id<vhost::GetVringBase>})
      all.push_back({"H061", request, ring, 1});
  }
  for (const uint32_t entries : {0U, 3U, 32769U, 65536U, 0x80000000U, 0xffffffffU})
    all.push_back({"H065", id<vhost::SetVringNum>, 0, entries});
  for (const State& one : all) {
    to.push_back({one.number,
                  fmt::format("{} of ring {:#x}, value {:#x}",
                              user::message_name<vhost::DeviceRequest>(one.request), one.ring, one.value),
                  [one](Assault& a) -> Or<> {
                    a.say(one.request, payload(one.ring, one.value));
                    return {};
                  }});
  }
  for (const uint64_t value : {uint64_t{0xff}, uint64_t{0xffff'ffff'0000'0000}, ~uint64_t{0x100}}) {
    for (const uint32_t request :
         {id<vhost::SetVringKick>, id<vhost::SetVringCall>, id<vhost::SetVringErr>}) {
      to.push_back({"H062",
                    fmt::format("{} of {:#x}", user::message_name<vhost::DeviceRequest>(request), value),
                    [request, value](Assault& a) -> Or<> {
                      std::vector<UniqueFd> fds;
                      fds.push_back(TRY(reach(make_eventfd(), "an eventfd")));
                      a.say(request, payload(value), std::move(fds));
                      return {};
                    }});
    }
  }
  for (const uint32_t ring : {0xffU, 0x10000U, 0xffffffffU}) {
    to.push_back({"H061", fmt::format("SET_VRING_ADDR of ring {:#x}", ring), [ring](Assault& a) -> Or<> {
                    a.say(id<vhost::SetVringAddr>, payload(ring, uint32_t{0}, front_end, front_end + 8192,
                                                           front_end + 4096, uint64_t{0}));
                    return {};
                  }});
  }
}

}  // namespace

std::vector<HostileInput> hostile_memory() {
  std::vector<HostileInput> all;
  add_tables(all);
  add_rings(all);
  return all;
}

}  // namespace ringway::check
