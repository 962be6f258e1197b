//! Leads the client to this machine without touching it.
//!
//! The client knows two exchanges by name, demo and production, and speaks TLS to port 443 of them;
//! nothing of that can be configured. So three things outside of it are arranged, as `/etc/hosts`, a
//! local authority and a proxy would for a machine of its own, but for this process alone and
//! without privileges: every name resolves to the loopback address, connections to port 443 go to a
//! port of ours, and there TLS ends with a certificate for the client's host. A connection that is
//! not led here fails: nothing leaves the machine.

use std::ffi::{CStr, c_char, c_int, c_long};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The port that the client believes in, and ours.
const TLS_PORT: u16 = 443;
static OUR_PORT: AtomicU16 = AtomicU16::new(0);

const LOOPBACK: &CStr = c"127.0.0.1";

type GetAddrInfo = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const libc::addrinfo,
    *mut *mut libc::addrinfo,
) -> c_int;

/// Stands before the C library's function of that name for the whole process: the linker finds this
/// one first.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getaddrinfo(
    _node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    result: *mut *mut libc::addrinfo,
) -> c_int {
    // SAFETY: the name is a C string, and RTLD_NEXT looks behind this executable.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"getaddrinfo".as_ptr()) };
    if next.is_null() {
        return libc::EAI_FAIL;
    }
    // SAFETY: the C library's function has this signature; the arguments are the caller's, except
    // the name, which is a C string that lives for ever.
    unsafe {
        let next = std::mem::transmute::<*mut libc::c_void, GetAddrInfo>(next);
        next(LOOPBACK.as_ptr(), service, hints, result)
    }
}

/// Stands before the C library's function of that name for the whole process.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(
    socket: c_int,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
) -> c_int {
    let full = size_of::<libc::sockaddr_in>();
    // SAFETY: the caller says that `length` bytes are there, and an address has its family.
    let led = unsafe {
        if usize::try_from(length).is_ok_and(|length| length >= full)
            && c_int::from((*address).sa_family) == libc::AF_INET
        {
            let mut led = address.cast::<libc::sockaddr_in>().read_unaligned();
            if u16::from_be(led.sin_port) == TLS_PORT {
                led.sin_port = OUR_PORT.load(Ordering::Acquire).to_be();
            }
            Some(led)
        } else {
            None
        }
    };
    let address = match &led {
        Some(led) => std::ptr::from_ref(led).cast(),
        None => address,
    };
    // SAFETY: the kernel's call of the same arguments; it copies the address.
    let result: c_long = unsafe { libc::syscall(libc::SYS_connect, socket, address, length) };
    c_int::try_from(result).unwrap_or(-1)
}

/// Where TLS ends for one host.
pub struct Terminator {
    config: Arc<ServerConfig>,
}

impl Terminator {
    /// Makes an authority that lives as long as this process, writes its certificate to `authority`
    /// and makes a certificate for `host`.
    pub fn new(host: &str, authority: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).context("describe an authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(authority, issuer.pem()).context("write the authority's certificate")?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![host.to_owned()])?;
        let certificate = params.signed_by(&key, &issuer).context("sign a certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Leads connections from here on: takes them, ends their TLS, and passes the bytes on to the
    /// exchange and back.
    pub async fn start(self, exchange: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        OUR_PORT.store(listener.local_addr()?.port(), Ordering::Release);
        let acceptor = TlsAcceptor::from(self.config);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Err(error) = pass(acceptor, socket, exchange).await {
                        eprintln!("a connection ended: {error}");
                    }
                });
            }
        });
        Ok(())
    }
}

async fn pass(acceptor: TlsAcceptor, socket: TcpStream, exchange: SocketAddr) -> Result<()> {
    let mut inner = acceptor.accept(socket).await.context("accept TLS")?;
    let mut outer = TcpStream::connect(exchange).await.context("connect to the exchange")?;
    tokio::io::copy_bidirectional(&mut inner, &mut outer).await?;
    Ok(())
}
