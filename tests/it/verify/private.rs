//! The private database: looked at beside the broker that runs it, and started for it alone.

use super::super::catalogue::private::Private;
use super::program::verify;

#[tokio::test]
async fn p12_the_private_database_is_verified_beside_its_broker_and_without_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("sealcast-verify-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data_dir = folder.path().join("sealcast").display().to_string();
    let settings = [("SEALCAST__DATA_DIR", data_dir)];
    let mut private = Private::start(Private::settings(folder.path())).await;
    let mut socket = private.ada.connect_live(&private.broker).await;
    private.ada.say(&mut socket, private.chat_id, "hello").await.unwrap();
    let called = verify(&settings, &[]).await.good();
    assert_eq!(called.json["counts"]["messages"], 1);
    // The broker goes on as if nothing had been.
    private.ada.say(&mut socket, private.chat_id, "hello again").await.unwrap();
    private.broker.signal("TERM");
    assert_eq!(private.broker.exit_code().await, Some(0));
    let called = verify(&settings, &[]).await.good();
    assert_eq!(called.json["counts"]["messages"], 2);
    private.broker.restart().await;
    let mut socket = private.ada.connect_live(&private.broker).await;
    private.ada.say(&mut socket, private.chat_id, "after it").await.unwrap();
}
