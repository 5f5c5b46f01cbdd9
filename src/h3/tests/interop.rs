//! Another implementation at the other end: the crate `h3`, of which 0.0.8 sends a plain CONNECT
//! with a scheme and a path.

use ::bytes::{Buf as _, Bytes};
use http::{Method, Request as HttpRequest, Response as HttpResponse, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::h3::testing::{pair, spawn, within};
use crate::h3::{Config, Request, RequestError, Response, client, server};

#[tokio::test]
async fn our_client_and_their_server() {
    let pair = pair().await;
    let (ours, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let quic = ::h3_quinn::Connection::new(pair.server.clone());
    let theirs = spawn(async move {
        let mut server = ::h3::server::Connection::<_, Bytes>::new(quic)
            .await
            .unwrap();
        let resolver = server.accept().await.unwrap().unwrap();
        let (request, mut stream) = resolver.resolve_request().await.unwrap();
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().authority().unwrap(), "10.0.0.2:80");
        assert_eq!(request.headers()["baggage"], "service.name=shop");
        let answer = HttpResponse::builder()
            .status(200)
            .header("baggage", "there");
        stream
            .send_response(answer.body(()).unwrap())
            .await
            .unwrap();
        while let Some(mut data) = stream.recv_data().await.unwrap() {
            let bytes = data.copy_to_bytes(data.remaining());
            stream.send_data(bytes).await.unwrap();
        }
        stream.finish().await.unwrap();
        let resolver = server.accept().await.unwrap().unwrap();
        let (_request, mut stream) = resolver.resolve_request().await.unwrap();
        let no = HttpResponse::builder().status(503).body(()).unwrap();
        stream.send_response(no).await.unwrap();
        stream.finish().await.unwrap();
        server.shutdown(0).await.unwrap();
        // Until the client closes the connection.
        while let Ok(Some(_)) = server.accept().await {}
    });
    let mut request = Request::connect("10.0.0.2:80");
    let baggage = "service.name=shop".parse().unwrap();
    request.headers.insert("baggage", baggage);
    let (response, mut stream) = within(ours.connect(&request)).await.unwrap();
    assert_eq!(response.headers["baggage"], "there");
    let sent = vec![5; 300_000];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = within(async { tokio::join!(writing, read.read_to_end(&mut got)) }).await;
    read.unwrap();
    assert!(got == sent);
    drop(stream);
    let error = within(ours.connect(&request)).await.unwrap_err();
    assert_eq!(
        error.status(),
        Some(StatusCode::SERVICE_UNAVAILABLE),
        "{error:?}"
    );
    within(theirs).await.unwrap();
    let error = within(ours.connect(&request)).await.unwrap_err();
    assert!(
        matches!(error, RequestError::Unprocessed | RequestError::Ended(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn their_client_and_our_server() {
    let pair = pair().await;
    let (ours, driver) = server(pair.server.clone(), Config::default());
    let driving = spawn(driver.run());
    let quic = ::h3_quinn::Connection::new(pair.client.clone());
    let theirs = spawn(async move {
        let (mut driver, mut client) = ::h3::client::new(quic).await.unwrap();
        let driving = spawn(async move { driver.wait_idle().await });
        let connect = HttpRequest::builder()
            .method(Method::CONNECT)
            .uri("10.0.0.2:80");
        let connect = connect
            .header("baggage", "service.name=shop")
            .body(())
            .unwrap();
        let mut stream = client.send_request(connect).await.unwrap();
        let answer = stream.recv_response().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        stream
            .send_data(Bytes::from_static(b"hello"))
            .await
            .unwrap();
        stream.finish().await.unwrap();
        let mut got = Vec::new();
        while let Some(mut data) = stream.recv_data().await.unwrap() {
            got.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        assert_eq!(got, b"hello, too");
        // The last of them closes the connection.
        drop((stream, client));
        driving.await.unwrap()
    });
    let incoming = within(ours.accept()).await.unwrap();
    let (request, responder) = within(incoming.request()).await.unwrap();
    assert_eq!(request.method, Method::CONNECT);
    assert_eq!(request.authority.as_deref(), Some("10.0.0.2:80"));
    assert!(
        request.scheme.is_some(),
        "this version sends what it should not"
    );
    assert_eq!(request.headers["baggage"], "service.name=shop");
    let mut stream = responder
        .accept(&Response::new(StatusCode::OK))
        .await
        .unwrap();
    let mut got = Vec::new();
    within(stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"hello");
    stream.write_all(b"hello, too").await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    within(theirs).await.unwrap();
    within(driving).await.unwrap().unwrap();
}
