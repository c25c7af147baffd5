#include "ringway/user/fields.h"

#include <algorithm>
#include <cstring>

namespace ringway::user {
namespace {

// Takes `fields` from the front of `from`, as many as there are whole.
std::vector<FieldValue> take(std::span<const Field> fields, std::span<const std::byte>& from) {
  std::vector<FieldValue> values;
  for (const Field& field : fields) {
    if (field.size > from.size()) break;
    FieldValue value{.field = field, .bytes = from.first(field.size)};
    if (field.size <= sizeof value.number) std::memcpy(&value.number, from.data(), field.size);
    values.push_back(value);
    from = from.subspan(field.size);
  }
  return values;
}

}  // namespace

FieldValues read_fields(const Layout& layout, std::span<const std::byte> payload) {
  FieldValues values;
  const bool is_shorter = !layout.shorter.empty() && payload.size() == size_of(layout.shorter);
  const std::span<const Field> fixed = is_shorter ? layout.shorter : layout.fixed;
  values.rest = payload;
  values.fixed = take(fixed, values.rest);
  values.is_short = values.fixed.size() < fixed.size();
  if (is_shorter || values.is_short || layout.repeated.empty()) return values;
  while (values.rest.size() >= size_of(layout.repeated))
    values.repeated.push_back(take(layout.repeated, values.rest));
  return values;
}

}  // namespace ringway::user
