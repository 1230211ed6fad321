//! Turns in the queue are by key where there is one, and by address where there is none.

use crate::http_support::*;
use rkllmd::auth::{ApiKey, CurrentKeys, Keyring, Role, Secret};
use rkllmd::generation::{FinishReason, Weight};
use rkllmd::settings::Settings;

fn key(keyring: &mut Keyring, name: &str) -> String {
    let secret = Secret::generate().unwrap();
    let key = ApiKey {
        name: name.parse().unwrap(),
        digest: secret.digest(),
        role: Role::User,
        models: None,
        weight: Weight::default(),
        tenant: None,
        created: String::new(),
    };
    keyring.add(key).unwrap();
    secret.plaintext().to_owned()
}

async fn server(keys: CurrentKeys) -> Server {
    let answer = || replay(vec![finished_unmeasured(FinishReason::Stop)]);
    Server::start_with_keys(Settings::default(), keys, move |_| Ok(answer())).await
}

/// Whose turn a chat request takes.
async fn client(server: &mut Server, header: &str) -> String {
    let request = String::from_utf8(chat("")).unwrap();
    let request = request.replacen("host: ", &format!("{header}host: "), 1);
    assert_eq!(server.ask(request).await.status, 200);
    let request = within("the request", server.requests.recv()).await;
    request.unwrap().client.name().to_owned()
}

#[tokio::test]
async fn each_key_has_its_own_turn_and_one_key_has_one() {
    let mut keyring = Keyring::default();
    let (one, other) = (key(&mut keyring, "one"), key(&mut keyring, "other"));
    let mut server = server(CurrentKeys::fixed(Some(keyring))).await;
    let bearer = client(&mut server, &format!("authorization: Bearer {one}\r\n")).await;
    let header = client(&mut server, &format!("x-api-key: {one}\r\n")).await;
    let others = client(&mut server, &format!("x-api-key: {other}\r\n")).await;
    assert_eq!(bearer, header);
    assert_ne!(bearer, others);
    server.shut_down().await;
}

#[tokio::test]
async fn without_keys_the_address_has_the_turn_whatever_is_shown() {
    let mut server = server(CurrentKeys::default()).await;
    let plain = client(&mut server, "").await;
    let dummy = client(&mut server, "authorization: Bearer sk-anything\r\n").await;
    assert_eq!((plain.as_str(), dummy.as_str()), ("127.0.0.1", "127.0.0.1"));
    server.shut_down().await;
}
