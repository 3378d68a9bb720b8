//! Sets the soname of libsockshim.so.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsockshim.so.0");
}
