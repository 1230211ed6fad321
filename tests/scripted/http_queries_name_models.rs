//! What a query says of a model is read, or refused by its name.

use crate::http_support::*;
use rkllmd::settings::Settings;

#[tokio::test]
async fn a_query_that_names_no_model_is_refused_by_name() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    for path in ["/v1/ready", "/v1/loading/progress", "/props", "/slots"] {
        for (query, status, code) in [
            ("model=tiny&model=tiny", 400, "invalid_value"),
            ("model=&model=", 400, "invalid_value"),
            ("model=nope", 404, "model_not_found"),
            ("model=%ff", 404, "model_not_found"),
            ("model=tiny%00", 404, "model_not_found"),
            ("model=%zz%", 404, "model_not_found"),
            ("model=%ed%a0%80", 404, "model_not_found"),
        ] {
            let answer = server.get(&format!("{path}?{query}")).await;
            let (class, param, found) = answer.error();
            assert_eq!(
                (answer.status, found.as_str()),
                (status, code),
                "{path}?{query}"
            );
            assert_eq!(class, "invalid_request_error", "{path}?{query}");
            assert_eq!(param.as_deref(), Some("model"), "{path}?{query}");
        }
        let empty = server.get(&format!("{path}?model=")).await;
        match path {
            // llama.cpp's server takes an empty name for none.
            "/props" | "/slots" => assert_eq!(empty.status, 200, "{path}"),
            _ => assert_eq!(
                (empty.status, empty.error().2.as_str()),
                (400, "invalid_value"),
                "{path}"
            ),
        }
    }
    server.shut_down().await;
}
