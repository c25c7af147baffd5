#include "ringway/tools/interview.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <memory>
#include <optional>
#include <utility>

#include "ringway/ring/config.h"
#include "ringway/tools/back_end.h"
#include "ringway/user/remote.h"
#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using vhost::bit;

constexpr uint32_t max_config = 256;  // bytes; what a message may carry

// What is negotiated to be able to ask, of what is offered.
constexpr uint64_t wanted_protocol =
    bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
    bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) | bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
constexpr uint64_t wanted_features = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES) | bit(VIRTIO_F_VERSION_1);

// One connection. The socket's own features are ours to see, so it is a bare remote.
class Talk {
 public:
  static Result<std::unique_ptr<Talk>> over(UniqueFd fd, std::chrono::milliseconds patience) {
    auto connection =
        TRY(user::Connection::adopt(std::move(fd), {.message_time_out = patience, .observer = {}}));
    return std::unique_ptr<Talk>(new Talk(std::move(connection), patience));
  }

  template <class Request>
  Result<typename Request::Reply> ask(Request request) {
    return vhost::call(remote_, std::move(request));
  }
  // As any front-end begins; protocol features that are offered and useful are then agreed on.
  Result<> greet(uint64_t& features, std::optional<uint64_t>& protocol) {
    features = TRY(ask(vhost::GetFeatures{}));
    if ((features & bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES)) == 0) return {};
    protocol = TRY(ask(vhost::GetProtocolFeatures{})).bits;
    TRY(ask(vhost::SetProtocolFeatures{{.bits = *protocol & wanted_protocol}}));
    negotiated_->set_capabilities(*protocol & wanted_protocol);
    return {};
  }
  // From here on rings can be described.
  Result<> set_features(uint64_t features) {
    TRY(ask(vhost::SetFeatures{.features = features}));
    negotiated_->set_features(features);
    return {};
  }
  Result<> agree_on_bit_21() {
    const uint64_t present = negotiated_->get().capabilities;
    TRY(ask(vhost::SetProtocolFeatures{{.bits = present | bit(vhost::VHOST_USER_PROTOCOL_F_GPA_ADDRESSES)}}));
    negotiated_->set_capabilities(present | bit(vhost::VHOST_USER_PROTOCOL_F_SHMEM));  // so that we may ask
    return {};
  }

 private:
  Talk(std::shared_ptr<user::Connection> connection, std::chrono::milliseconds patience)
      : remote_(std::move(connection), negotiated_, nullptr, patience) {}
  const std::shared_ptr<user::Negotiated> negotiated_ = std::make_shared<user::Negotiated>();
  user::Remote<vhost::DeviceRequest> remote_;
};

class Interviewer {
 public:
  explicit Interviewer(const InterviewOptions& options) : options_(options) {}

  std::expected<Findings, std::string> run() {
    auto peer = reach(options_.socket);
    if (!peer) return std::unexpected(std::move(peer).error());
    found_.socket = options_.socket;
    found_.pid = peer->pid;
    found_.program = peer->program;
    const Result<> begun = begin(std::move(peer->fd));
    if (!begun) return std::unexpected(explain(begun.error()));
    guess_type();
    ask_numbers();
    if (can(vhost::VHOST_USER_PROTOCOL_F_CONFIG)) ask_config();
    if (can(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)) ask_queue_size();
    if (can(vhost::VHOST_USER_PROTOCOL_F_GPA_ADDRESSES) && !can(vhost::VHOST_USER_PROTOCOL_F_SHMEM))
      ask_about_bit_21();
    if (can(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK) && options_.hostile) ask_badly();
    return std::move(found_);
  }

 private:
  [[nodiscard]] bool can(unsigned capability) const {
    return (found_.protocol.value_or(0) & bit(capability)) != 0;
  }

  Result<> begin(UniqueFd fd) {
    talk_ = TRY(Talk::over(std::move(fd), options_.patience));
    return talk_->greet(found_.features, found_.protocol);
  }

  // After an answer that ended the connection: a new one, greeted. False: there is no back-end any more.
  bool begin_again() {
    talk_.reset();
    auto peer = reach(options_.socket);
    Result<> begun = refused("");
    if (peer) begun = begin(std::move(peer->fd));
    if (begun) return true;
    if (!is_gone_) found_.failures.push_back("then it accepted no further connection");
    is_gone_ = true;
    talk_.reset();
    return false;
  }

  [[nodiscard]] std::string explain(const Error& error) const {
    const char* why = "";
    if (error.fault == Fault::gone) {
      why =
          "it closed the connection at the first request, so it does not speak vhost-user or does not want "
          "to now";
    } else if (error.fault == Fault::violation) {
      why = "it does not answer as a vhost-user back-end does; it may be busy with another front-end";
    }
    const std::string limit = error.fault == Fault::violation
                                  ? fmt::format(" (an answer may take {} s)",
                                                std::chrono::duration<double>(options_.patience).count())
                                  : "";
    return fmt::format("{}: {}{}{}{}", options_.socket, error.to_string(), *why == '\0' ? "" : ": ", why,
                       limit);
  }

  void guess_type() {
    found_.type_is_certain = options_.type != nullptr;
    found_.types = options_.type != nullptr ? std::vector<const DeviceType*>{options_.type}
                                            : possible_types(found_.features, found_.protocol.value_or(0));
  }

  // Asks on the present connection, or on a new one if it is lost. A failure is noted.
  template <class Request>
  std::optional<typename Request::Reply> ask(Request request) {
    if (talk_ == nullptr && !begin_again()) return std::nullopt;
    auto reply = talk_->ask(std::move(request));
    if (reply) return std::move(*reply);
    found_.failures.push_back(reply.error().to_string());
    if (reply.error().fault != Fault::refused) talk_.reset();
    return std::nullopt;
  }

  void ask_numbers() {
    if (can(vhost::VHOST_USER_PROTOCOL_F_MQ)) found_.queues = ask(vhost::GetQueueNum{});
    if (can(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
      found_.memory_slots = ask(vhost::GetMaxMemSlots{});
    ask(vhost::SetOwner{});
  }

  // The configuration space has no stated size: the largest that can be read is looked for.
  void ask_config() {
    uint32_t most = 0;
    uint32_t too_many = max_config + 1;
    for (uint32_t size = max_config; most + 1 < too_many; size = most + (too_many - most) / 2) {
      const std::optional<bool> can_read = read_config(size);
      if (!can_read) return;
      (*can_read ? most : too_many) = size;
    }
    found_.config_failed = most == 0;
  }

  // True: `found_.config` has it. False: refused. Nothing: there is no back-end any more, or it answers
  // nonsense.
  std::optional<bool> read_config(uint32_t size) {
    if (talk_ == nullptr && !begin_again()) return std::nullopt;
    Result<vhost::ConfigBytes> reply = talk_->ask(vhost::GetConfig{.offset = 0, .size = size});
    if (reply && !reply->bytes.empty()) {
      found_.config = std::move(reply->bytes);
      return true;
    }
    if (reply || reply.error().fault == Fault::refused) return false;
    talk_.reset();
    if (reply.error().fault == Fault::gone) return false;  // some close the connection to say no
    found_.failures.push_back(reply.error().to_string());
    return std::nullopt;
  }

  void ask_queue_size() {
    for (uint32_t size = ring::max_size; size > 0; size /= 2) {
      const std::optional<bool> acknowledged = try_request(vhost::SetVringNum{.ring = 0, .size = size});
      if (!acknowledged) return;
      if (*acknowledged) {
        found_.queue_size = size;
        return;
      }
    }
  }

  // Whether it acknowledges a request, asked when features are set. A connection that it closes over it is a
  // no.
  template <class Request>
  std::optional<bool> try_request(Request request) {
    if (talk_ == nullptr && !begin_again()) return std::nullopt;
    if (!talk_->set_features(found_.features & wanted_features)) {
      talk_.reset();
      return std::nullopt;
    }
    const auto reply = talk_->ask(std::move(request));
    if (reply) return true;
    if (reply.error().fault != Fault::refused) talk_.reset();
    return false;
  }

  void ask_badly() {
    const uint64_t unoffered = bit(63) & ~found_.features;
    bad("a ring of 0 entries", vhost::SetVringNum{.ring = 0, .size = 0});
    bad("a ring of 65535 entries", vhost::SetVringNum{.ring = 0, .size = 65535});
    if (unoffered != 0)
      bad("a feature that it did not offer", vhost::SetFeatures{.features = found_.features | unoffered});
    bad("enabling a ring that it does not have", vhost::SetVringEnable{.ring = 60000, .enable = 1});
  }

  template <class Request>
  void bad(const char* what, Request request) {
    if (is_gone_) return;
    const std::optional<bool> acknowledged = try_request(std::move(request));
    if (acknowledged.value_or(false)) found_.wrongly_acknowledged.emplace_back(what);
    if (!begin_again()) found_.failures.push_back(fmt::format("it did not survive {}", what));
  }

  // The vhost crate of rust-vmm used bit 21 for SHMEM once. A back-end that means it answers
  // GET_SHMEM_CONFIG.
  void ask_about_bit_21() {
    if (!begin_again()) return;
    found_.takes_bit_21_for_shmem = talk_->agree_on_bit_21() && talk_->ask(vhost::GetShmemConfig{});
    talk_.reset();
  }

  const InterviewOptions& options_;
  Findings found_;
  std::unique_ptr<Talk> talk_;
  bool is_gone_ = false;
};

}  // namespace

std::expected<Findings, std::string> interview(const InterviewOptions& options) {
  return Interviewer(options).run();
}

}  // namespace ringway::tools
