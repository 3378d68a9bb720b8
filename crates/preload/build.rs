//! How libsockshim.so is linked.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsockshim.so.0");
    // Its own names mean its own functions, whatever was loaded before it: another copy of it, for example.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
