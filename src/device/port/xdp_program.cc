#include "ringway/device/port/xdp_program.h"

#include <bpf/bpf.h>
#include <linux/if_link.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace ringway::port {
namespace {

Error explained(int error) {
  switch (error) {
    case EPERM:
      return os_failure("an XDP program needs CAP_BPF and CAP_NET_ADMIN", error).error();
    case EBUSY:
    case EEXIST:
      return os_failure("the interface has an XDP program already", error).error();
    default:
      return os_failure("the interface does not take an XDP program", error).error();
  }
}

// return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
Result<UniqueFd> load(int sockets) {
  const auto program = std::to_array<bpf_insn>({
      {.code = BPF_LDX | BPF_W | BPF_MEM,
       .dst_reg = BPF_REG_2,
       .src_reg = BPF_REG_1,
       .off = offsetof(xdp_md, rx_queue_index),
       .imm = 0},
      {.code = BPF_LD | BPF_DW,  // of what follows: BPF_IMM is 0
       .dst_reg = BPF_REG_1,
       .src_reg = BPF_PSEUDO_MAP_FD,
       .off = 0,
       .imm = sockets},
      {.code = 0, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},  // the upper half of the number
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .src_reg = 0, .off = 0, .imm = XDP_PASS},
      {.code = BPF_JMP | BPF_CALL, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = BPF_FUNC_redirect_map},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
  });
  UniqueFd fd(
      ::bpf_prog_load(BPF_PROG_TYPE_XDP, "ringway", "Apache-2.0", program.data(), program.size(), nullptr));
  if (!fd) return std::unexpected(explained(errno));
  return fd;
}

UniqueFd link(int program, unsigned interface, uint32_t mode) {
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.flags = mode;
  return UniqueFd(::bpf_link_create(program, static_cast<int>(interface), BPF_XDP, &options));
}

}  // namespace

Result<std::unique_ptr<XdpProgram>> XdpProgram::attach(unsigned interface, bool must_be_native) {
  UniqueFd sockets(::bpf_map_create(BPF_MAP_TYPE_XSKMAP, "ringway", sizeof(uint32_t), sizeof(uint32_t),
                                    max_queues, nullptr));
  if (!sockets) return std::unexpected(explained(errno));
  const UniqueFd program = TRY(load(sockets.get()));
  UniqueFd attached = link(program.get(), interface, XDP_FLAGS_DRV_MODE);
  const bool is_taken = errno == EBUSY || errno == EEXIST;
  if (!attached && !must_be_native && !is_taken)
    attached = link(program.get(), interface, XDP_FLAGS_SKB_MODE);
  if (!attached) return std::unexpected(explained(errno));
  return std::unique_ptr<XdpProgram>(new XdpProgram(interface, std::move(sockets), std::move(attached)));
}

Result<> XdpProgram::lead(uint32_t queue, int socket) {
  if (queue >= max_queues) return refused("the interface has no such queue", queue);
  if (::bpf_map_update_elem(sockets_.get(), &queue, &socket, BPF_ANY) != 0)
    return os_failure("the XDP program does not take a socket");
  return {};
}

}  // namespace ringway::port
