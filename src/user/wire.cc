#include "ringway/user/wire.h"

namespace ringway::user {

// ---- rings with a file descriptor

void Reader::ring_and_fd(uint32_t& ring, UniqueFd& to) {
  uint64_t value = 0;
  get(value);
  ring = static_cast<uint32_t>(value & ring_index_mask);
  if ((value & ~(ring_index_mask | no_fd_flag)) != 0) return fail(violation("undefined bits are set", value));
  if ((value & no_fd_flag) == 0) fd(to);
}

// ---- memory

void Writer::regions(std::vector<vhost::MemoryRegion>& from) {
  put(static_cast<uint32_t>(from.size()));
  zeros(4);
  for (vhost::MemoryRegion& region : from) {
    put(region.layout);
    fd(region.fd);
  }
}

// Bytes after the last region are tolerated: user-mode Linux always sends room for two.
void Reader::regions(std::vector<vhost::MemoryRegion>& to) {
  uint32_t count = 0;
  get(count);
  zeros(4);
  if (count > rest_.size() / 32)
    return fail(violation("payload is too short for its number of regions", count));
  to.resize(count);
  for (vhost::MemoryRegion& region : to) {
    get(region.layout);
    fd(region.fd);
  }
  skip_rest();
}

// ---- SET_LOG_BASE: with LOG_SHMFD size and offset of a file, else one number

void Writer::log(vhost::SetLogBase& from) {
  if (from.origin == vhost::MemoryRegion::Origin::own_process) return fail(refused("no file goes with it"));
  if (from.fd || from.size != 0) put(from.size);
  put(from.offset);
  optional_fd(from.fd);
}

void Reader::log(vhost::SetLogBase& to) {
  if (remaining() == sizeof to.offset) return get(to.offset);
  (*this)(to.size, to.offset);
  optional_fd(to.fd);
}

// ---- configuration space

void Writer::config(const vhost::ConfigBytes& from) {
  (*this)(from.offset, static_cast<uint32_t>(from.bytes.size()), from.flags);
  bytes(from.bytes);
}

void Reader::config(vhost::ConfigBytes& to) {
  if (rest_.empty()) return;
  uint32_t size = 0;
  (*this)(to.offset, size, to.flags);
  if (size != remaining()) return fail(violation("size field does not match the payload", size));
  bytes(to.bytes);
}

void Writer::config_request(const vhost::GetConfig& from) {
  if (from.size > max_payload) return fail(refused("cannot be sent: too large", from.size));
  (*this)(from.offset, from.size, from.flags);
  zeros(from.size);
}

void Reader::config_request(vhost::GetConfig& to) {
  (*this)(to.offset, to.size, to.flags);
  if (to.size != remaining()) return fail(violation("size field does not match the payload", to.size));
  skip_rest();
}

// ---- the back-end channel

void Writer::front_end(std::shared_ptr<vhost::FrontEnd>& from) {
  if (back_channel_ == nullptr || from == nullptr) return fail(refused("there is no back-end channel"));
  Result<UniqueFd> socket = back_channel_->serve(std::move(from));
  if (!socket) return fail(std::unexpected(socket.error()));
  fd(*socket);
}

void Reader::front_end(std::shared_ptr<vhost::FrontEnd>& to) {
  UniqueFd socket;
  fd(socket);
  if (back_channel_ == nullptr) return fail(refused("there is no back-end channel"));
  if (!result_) return;
  Result<std::shared_ptr<vhost::FrontEnd>> reached = back_channel_->reach(std::move(socket));
  if (!reached) return fail(std::unexpected(reached.error()));
  to = *std::move(reached);
}

// ---- replies that say themselves whether a file descriptor comes

void Writer::state_channel(vhost::StateChannel& from) {
  if (from.error != 0) from.fd.reset();
  put(uint64_t{from.error} | (from.fd ? 0 : no_fd_flag));
  optional_fd(from.fd);
}

void Reader::state_channel(vhost::StateChannel& to) {
  uint64_t value = 0;
  get(value);
  to.error = static_cast<uint8_t>(value & 0xff);
  const bool has_fd = (value & no_fd_flag) == 0;
  if (to.error != 0 && has_fd) return fail(violation("an error and a file descriptor at once", value));
  if (has_fd) fd(to.fd);
}

void Writer::looked_up(vhost::SharedObject& from) {
  status(static_cast<bool>(from.fd));
  optional_fd(from.fd);
}

void Reader::looked_up(vhost::SharedObject& to) {
  uint64_t value = 0;
  get(value);
  if (value == 0) fd(to.fd);
}

}  // namespace ringway::user
