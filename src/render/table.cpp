#include "render/table.h"

#include <algorithm>

#include "render/escape.h"

namespace vmsight {
namespace {

/// One line being put together: pads between cells, drops the blanks at its end.
class Line {
 public:
  void add(std::string_view text, Align align, std::size_t width, bool last) {
    const std::size_t used = display_width(text);
    const std::size_t blanks = width > used ? width - used : 0;
    if (align == Align::right) text_.append(blanks, ' ');
    text_ += text;
    if (last) return;
    if (align == Align::left) text_.append(blanks, ' ');
    text_ += ' ';
  }
  void print(Output& out, std::size_t width) {
    text_.erase(text_.find_last_not_of(' ') + 1);
    out.write(width == 0 ? std::string_view(text_) : clip(text_, width));
    out.write("\n");
    text_.clear();
  }

 private:
  std::string text_;
};

}  // namespace

void Table::cell(std::string_view text) {
  text_ += for_terminal(text);
  ends_.push_back(text_.size());
}

std::string_view Table::text_of(std::size_t index) const {
  const std::size_t start = index == 0 ? 0 : ends_[index - 1];
  return std::string_view(text_).substr(start, ends_[index] - start);
}

std::vector<std::size_t> Table::widths(bool headers) const {
  std::vector<std::size_t> widths(columns_.size(), 0);
  if (headers) {
    for (std::size_t c = 0; c < columns_.size(); ++c) widths[c] = columns_[c].header.size();
  }
  for (std::size_t i = 0; i < rows() * columns_.size(); ++i) {
    std::size_t& width = widths[i % columns_.size()];
    width = std::max(width, display_width(text_of(i)));
  }
  return widths;
}

void Table::print(Output& out, const TableOptions& options) const {
  const std::vector<std::size_t> width = widths(options.headers);
  const std::size_t count = columns_.size();
  Line line;
  if (options.headers) {
    for (std::size_t c = 0; c < count; ++c) {
      line.add(columns_[c].header, columns_[c].align, width[c], c + 1 == count);
    }
    line.print(out, options.width);
  }
  for (std::size_t row = 0; row < rows() && !out.failed(); ++row) {
    for (std::size_t c = 0; c < count; ++c) {
      line.add(text_of(row * count + c), columns_[c].align, width[c], c + 1 == count);
    }
    line.print(out, options.width);
  }
}

}  // namespace vmsight
