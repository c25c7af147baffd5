-- Wireshark's dissector for what `ringway trace --pcap` writes: LINKTYPE_USER5, a header of Ringway's own, then one
-- vhost-user message as it passed. The format is described in docs/trace.md.
--   wireshark -X lua_script:vhost_user.lua trace.pcapng        or put this file into ~/.local/lib/wireshark/plugins

local vhost = Proto("vhost_user", "vhost-user")

local sides = { [0] = "front-end", [1] = "back-end" }
local channels = { [0] = "main", [1] = "back-end" }
local kinds = { [0] = "eventfd", "memfd", "file", "device", "socket", "pipe", "userfaultfd", "directory", "other" }

-- The fields of payloads: name, bytes; "hex" for addresses and bits.
local none = {}
local number = function(name) return { { name, 8 } } end
local bits = function(name) return { { name, 8, "hex" } } end
local ring_and = function(name) return { { "ring", 4 }, { name, 4 } } end
local result = number("result")
local region = { { "guest", 8, "hex" }, { "size", 8 }, { "user", 8, "hex" }, { "offset", 8 } }
local one_region = { { "padding", 8 }, { "guest", 8, "hex" }, { "size", 8 }, { "user", 8, "hex" }, { "offset", 8 } }
local regions = { { "regions", 4 }, { "padding", 4 }, each = region }
local iotlb = { { "iova", 8, "hex" }, { "size", 8 }, { "user", 8, "hex" }, { "permission", 1 }, { "type", 1 },
                { "padding", 6 } }
local config = { { "offset", 4 }, { "size", 4 }, { "flags", 4, "hex" } }
local inflight = { { "size", 8 }, { "offset", 8 }, { "queues", 2 }, { "queue_size", 2 }, { "padding", 4 } }
local ring_fd = { { "ring", 8, "ring" } }
local uuid = { { "uuid", 16, "bytes" } }
local shmem = { { "shmid", 1 }, { "padding", 7 }, { "fd_offset", 8 }, { "shm_offset", 8 }, { "length", 8 },
                { "flags", 8, "hex" } }

-- Name, fields of the request, fields of the reply.
local requests = {
  [0] = {
    { "GET_FEATURES", none, bits("features") },
    { "SET_FEATURES", bits("features"), result },
    { "SET_OWNER", none, result },
    { "RESET_OWNER", none, result },
    { "SET_MEM_TABLE", regions, regions },
    { "SET_LOG_BASE", { { "size", 8 }, { "offset", 8 } }, result },
    { "SET_LOG_FD", none, result },
    { "SET_VRING_NUM", ring_and("size"), result },
    { "SET_VRING_ADDR", { { "ring", 4 }, { "flags", 4, "hex" }, { "descriptors", 8, "hex" }, { "used", 8, "hex" },
                          { "available", 8, "hex" }, { "log", 8, "hex" } }, result },
    { "SET_VRING_BASE", ring_and("base"), result },
    { "GET_VRING_BASE", ring_and("padding"), ring_and("base") },
    { "SET_VRING_KICK", ring_fd, result },
    { "SET_VRING_CALL", ring_fd, result },
    { "SET_VRING_ERR", ring_fd, result },
    { "GET_PROTOCOL_FEATURES", none, bits("protocol_features") },
    { "SET_PROTOCOL_FEATURES", bits("protocol_features"), result },
    { "GET_QUEUE_NUM", none, number("queues") },
    { "SET_VRING_ENABLE", ring_and("enable"), result },
    { "SEND_RARP", bits("mac"), result },
    { "NET_SET_MTU", number("mtu"), result },
    { "SET_BACKEND_REQ_FD", none, result },
    { "IOTLB_MSG", iotlb, result },
    { "SET_VRING_ENDIAN", ring_and("big_endian"), result },
    { "GET_CONFIG", config, config },
    { "SET_CONFIG", config, result },
    { "CREATE_CRYPTO_SESSION", none, none },
    { "CLOSE_CRYPTO_SESSION", number("session"), result },
    { "POSTCOPY_ADVISE", none, none },
    { "POSTCOPY_LISTEN", none, result },
    { "POSTCOPY_END", none, result },
    { "GET_INFLIGHT_FD", inflight, inflight },
    { "SET_INFLIGHT_FD", inflight, result },
    { "GPU_SET_SOCKET", none, result },
    { "RESET_DEVICE", none, result },
    { "VRING_KICK", ring_and("padding"), result },
    { "GET_MAX_MEM_SLOTS", none, number("slots") },
    { "ADD_MEM_REG", one_region, one_region },
    { "REM_MEM_REG", one_region, result },
    { "SET_STATUS", bits("status"), result },
    { "GET_STATUS", none, bits("status") },
    { "GET_SHARED_OBJECT", uuid, none },
    { "SET_DEVICE_STATE_FD", { { "direction", 4 }, { "phase", 4 } }, { { "error", 8, "ring" } } },
    { "CHECK_DEVICE_STATE", none, result },
    { "GET_SHMEM_CONFIG", none, { { "regions", 4 }, { "padding", 4 }, each = { { "size", 8 } } } },
    { "GET_VRING_BASE_SKIP_DRAIN", ring_and("padding"), ring_and("base") },
  },
  [1] = {
    { "BACKEND_IOTLB_MSG", iotlb, result },
    { "BACKEND_CONFIG_CHANGE_MSG", none, result },
    { "BACKEND_VRING_HOST_NOTIFIER_MSG", { { "ring", 8, "ring" }, { "size", 8 }, { "offset", 8 } }, result },
    { "BACKEND_VRING_CALL", ring_and("padding"), result },
    { "BACKEND_VRING_ERR", ring_and("padding"), result },
    { "BACKEND_SHARED_OBJECT_ADD", uuid, result },
    { "BACKEND_SHARED_OBJECT_REMOVE", uuid, result },
    { "BACKEND_SHARED_OBJECT_LOOKUP", uuid, result },
    { "BACKEND_SHMEM_MAP", shmem, result },
    { "BACKEND_SHMEM_UNMAP", shmem, result },
  },
}

local f = {
  channel = ProtoField.uint8("vhost_user.channel", "Channel", base.DEC, channels),
  from = ProtoField.uint8("vhost_user.from", "From", base.DEC, sides),
  session = ProtoField.uint32("vhost_user.session", "Session"),
  answers = ProtoField.uint32("vhost_user.answers", "Answers message"),
  number = ProtoField.uint32("vhost_user.message", "Message"),
  fd = ProtoField.string("vhost_user.fd", "File descriptor"),
  id = ProtoField.uint32("vhost_user.id", "Request"),
  name = ProtoField.string("vhost_user.name", "Name"),
  flags = ProtoField.uint32("vhost_user.flags", "Flags", base.HEX),
  version = ProtoField.uint32("vhost_user.flags.version", "Version", base.DEC, nil, 0x3),
  reply = ProtoField.bool("vhost_user.flags.reply", "Reply", 32, nil, 0x4),
  need_reply = ProtoField.bool("vhost_user.flags.need_reply", "Need reply", 32, nil, 0x8),
  size = ProtoField.uint32("vhost_user.size", "Payload size"),
  value = ProtoField.string("vhost_user.field", "Field"),
  rest = ProtoField.bytes("vhost_user.bytes", "Bytes"),
}
vhost.fields = { f.channel, f.from, f.session, f.answers, f.number, f.fd, f.id, f.name, f.flags, f.version, f.reply,
                 f.need_reply, f.size, f.value, f.rest }

local function value_of(range, show)
  if show == "bytes" then return tostring(range:bytes()):lower() end
  if show == "hex" then return string.format("0x%s", (tostring(range:le_uint64():tohex()):lower():gsub("^0+(.)", "%1"))) end
  if show == "ring" then
    local value = range:le_uint64()
    local without = value:band(UInt64(0x100)) ~= UInt64(0) and " without fd" or ""
    return tostring(value:band(UInt64(0xff))) .. without
  end
  if range:len() > 4 then return tostring(range:le_uint64()) end
  return tostring(range:le_uint())
end

-- Adds the fields that are whole and not only padding; returns where they end, or nothing if the buffer ends before.
local function add_fields(tree, buffer, offset, fields, prefix)
  for _, field in ipairs(fields) do
    local name, size, show = field[1], field[2], field[3]
    if offset + size > buffer:len() then return nil end
    local range = buffer(offset, size)
    if name ~= "padding" then
      if show == "hex" and size == 4 then
        tree:add(f.value, range, string.format("%s%s 0x%x", prefix, name, range:le_uint()))
      else
        tree:add(f.value, range, prefix .. name .. " " .. value_of(range, show))
      end
    end
    offset = offset + size
  end
  return offset
end

local function size_of(fields)
  local size = 0
  for _, field in ipairs(fields) do size = size + field[2] end
  return size
end

local function add_payload(tree, payload, fields)
  local offset = add_fields(tree, payload, 0, fields, "")
  if fields.each and offset then
    local index = 0
    while offset + size_of(fields.each) <= payload:len() do
      offset = add_fields(tree, payload, offset, fields.each, string.format("%d ", index))
      index = index + 1
    end
  end
  offset = offset or 0
  if offset < payload:len() then tree:add(f.rest, payload(offset)) end
end

-- The header before the message; returns where the message begins.
local function add_capture(tree, buffer)
  tree:add(f.channel, buffer(1, 1))
  tree:add(f.from, buffer(2, 1))
  tree:add_le(f.session, buffer(4, 4))
  if buffer(8, 4):le_uint() ~= 0 then tree:add_le(f.answers, buffer(8, 4)) end
  tree:add_le(f.number, buffer(12, 4))
  local offset = 16
  for _ = 1, buffer(3, 1):uint() do
    local kind, length = kinds[buffer(offset, 1):uint()] or "unknown", buffer(offset + 1, 1):uint()
    local size = buffer(offset + 10, 8):le_uint64()
    local text = kind
    if length > 0 then text = text .. " " .. buffer(offset + 18, length):string() end
    if size ~= UInt64(0) then text = text .. " of " .. tostring(size) .. " bytes" end
    tree:add(f.fd, buffer(offset, 18 + length), text)
    offset = offset + 18 + length
  end
  return offset
end

function vhost.dissector(buffer, packet, root)
  if buffer:len() < 16 or buffer(0, 1):uint() ~= 1 then return 0 end
  local channel, from = buffer(1, 1):uint(), buffer(2, 1):uint()
  local is_reply = (channel == 0) == (from == 1)
  local tree = root:add(vhost, buffer())
  local begin = add_capture(tree, buffer)
  packet.cols.protocol = "vhost-user"
  packet.cols.src = sides[from]
  packet.cols.dst = sides[1 - from]
  if buffer:len() < begin + 12 then
    packet.cols.info = "part of a header"
    return buffer:len()
  end
  local message = buffer(begin)
  local known = requests[channel] and requests[channel][message(0, 4):le_uint()]
  local name = known and known[1] or string.format("unknown message %d", message(0, 4):le_uint())
  packet.cols.info = name .. (is_reply and " reply" or "")
  tree:append_text(", " .. name)
  tree:add_le(f.id, message(0, 4))
  tree:add(f.name, message(0, 4), name)
  local flags = tree:add_le(f.flags, message(4, 4))
  flags:add_le(f.version, message(4, 4))
  flags:add_le(f.reply, message(4, 4))
  flags:add_le(f.need_reply, message(4, 4))
  tree:add_le(f.size, message(8, 4))
  if message:len() == 12 then return buffer:len() end
  local payload = message(12):tvb()
  local fields = known and (is_reply and known[3] or known[2]) or none
  -- Short forms: a table that is only acknowledged, a log without a file.
  if is_reply and payload:len() == 8 and (fields == regions or fields == one_region) then fields = result end
  if not is_reply and payload:len() == 8 and name == "SET_LOG_BASE" then fields = bits("base") end
  if is_reply and payload:len() == 8 and name == "GET_SHARED_OBJECT" then fields = result end
  add_payload(tree, payload, fields)
  return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER5, vhost)
