//! The process that makes the calls, natively or with the library preloaded: one thread for each channel to the
//! driver, each of which performs one call after the other.

use std::os::unix::ffi::OsStrExt;
use std::{env, ptr, thread};

use crate::call::{CHANNELS, Call, RIGHTS, Reply};
use crate::perform;

/// Names the channels that this process serves.
pub(crate) const CHANNELS_VARIABLE: &str = "DIFFERENTIAL_CHANNELS";

/// Serves the channels, if this process is an actor.
pub(crate) fn serve_if_asked() {
    let Ok(text) = env::var(CHANNELS_VARIABLE) else { return };
    perform::catch_signals();
    let mut channels = text.split(' ').map(|number| number.parse().expect("a channel"));
    let first = channels.next().expect("a channel");
    for channel in channels {
        thread::spawn(move || serve(channel));
    }
    serve(first);
    leave()
}

/// Performs what comes over `channel` until the driver closes it.
fn serve(mut channel: i32) {
    let mut buffer = [0_u8; 4096];
    loop {
        let count = unsafe { libc::recv(channel, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match count {
            1.. => {}
            -1 if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => continue,
            _ => return,
        }
        let call: Call = serde_json::from_slice(&buffer[..count as usize]).expect("a call");
        let reply = match call {
            Call::Fork { channel: new } => match unsafe { libc::fork() } {
                0 => {
                    close_channels(|each| each == new);
                    channel = new;
                    continue;
                }
                child => {
                    close_channels(|each| each != new);
                    Reply { value: child.into(), ..Reply::default() }
                }
            },
            Call::Exec { channel } => execute(channel),
            Call::Exit => leave(),
            _ => perform::perform(&call),
        };
        let text = serde_json::to_vec(&reply).expect("plain numbers");
        unsafe { libc::send(channel, text.as_ptr().cast(), text.len(), libc::MSG_NOSIGNAL) };
    }
}

/// Leaves without running what an exit of libc runs: a forked child shares it with its parent.
fn leave() -> ! {
    unsafe { libc::_exit(0) }
}

/// Closes the channels that are not kept, behind the back of everybody.
fn close_channels(keep: impl Fn(i32) -> bool) {
    for channel in (CHANNELS..RIGHTS).filter(|&channel| !keep(channel)) {
        unsafe { libc::syscall(libc::SYS_close, channel) };
    }
}

/// Runs this program again, with all descriptors, as an actor with one channel.
fn execute(channel: i32) -> ! {
    let c_string = |bytes: &[u8]| std::ffi::CString::new(bytes).expect("no zero byte");
    let program = c_string(env::current_exe().expect("/proc").as_os_str().as_bytes());
    let variables: Vec<_> = env::vars_os()
        .filter(|(name, _)| name != CHANNELS_VARIABLE)
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .chain([c_string(format!("{CHANNELS_VARIABLE}={channel}").as_bytes())])
        .collect();
    let variables: Vec<_> = variables.iter().map(|each| each.as_ptr()).chain([ptr::null()]).collect();
    close_channels(|each| each == channel);
    unsafe {
        libc::execve(program.as_ptr(), [program.as_ptr(), ptr::null()].as_ptr(), variables.as_ptr());
        libc::_exit(127)
    }
}
