# A formula for Homebrew: brew install --HEAD ./packaging/homebrew/usbferry.rb
# A URL and a sum come with the first release; until then --HEAD, which builds from a clone in
# /usr/local/src/usbferry (`head` below).
class Usbferry < Formula
  desc "USB/IP server: exports USB devices through libusb, without a kernel module"
  homepage "https://github.com/usbferry/usbferry"
  license any_of: ["MIT", "Apache-2.0"]
  head "file:///usr/local/src/usbferry", using: :git, branch: "main"

  depends_on "pkgconf" => :build
  depends_on "rust" => :build
  depends_on "libusb"

  def install
    system "cargo", "install", "--no-default-features", "--features", "simulate", *std_cargo_args
    system "cargo", "run", "--example", "pages", "--", "pages"
    man1.install Dir["pages/man/*.1"]
    bash_completion.install "pages/completions/usbferry.bash" => "usbferry"
    zsh_completion.install "pages/completions/_usbferry"
    fish_completion.install "pages/completions/usbferry.fish"
  end

  service do
    run [opt_bin/"usbferry", "serve", "--config", etc/"usbferry/usbferry.toml"]
    keep_alive crashed: true
    log_path var/"log/usbferry.log"
    error_log_path var/"log/usbferry.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/usbferry --version") unless build.head?
    assert_match "simulated", shell_output("#{bin}/usbferry serve --help")
  end
end
