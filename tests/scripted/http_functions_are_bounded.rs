//! Functions that a request gives are rendered into its prompt, so their number and size are bounded.

use crate::http_support::*;
use rkllmd::settings::Settings;

/// A chat with a model whose calls are told from content.
async fn ask(server: &Server, fields: &str) -> Answer {
    let messages = r#"[{"role":"user","content":"hi"}]"#;
    let body = format!(r#"{{"model":"thinker","messages":{messages}{fields}}}"#);
    server.post(CHAT, &body).await
}

#[tokio::test]
async fn functions_are_bounded_in_number_and_in_size() {
    let mut settings = Settings::default();
    settings.chat.max_tools = 2;
    settings.chat.tools_limit_bytes = 1024;
    let server = Server::start(settings, |_| Ok(replay(vec![finished()]))).await;
    let tool = |bytes: usize| {
        let description = "d".repeat(bytes);
        format!(r#"{{"name":"f","description":"{description}","parameters":{{"a": 1}}}}"#)
    };
    // Of each, one byte is the name and seven are the schema.
    for (bytes, limit) in [
        (&[500, 508][..], None),
        (&[500, 509], Some("tools-limit-bytes")),
        (&[1, 1, 1], Some("max-tools")),
    ] {
        for form in ["tools", "functions"] {
            let functions = bytes.iter().map(|bytes| match form {
                "tools" => format!(r#"{{"type":"function","function":{}}}"#, tool(*bytes)),
                _ => tool(*bytes),
            });
            let functions: Vec<String> = functions.collect();
            let answer = ask(&server, &format!(r#","{form}":[{}]"#, functions.join(","))).await;
            let Some(limit) = limit else {
                assert_eq!(answer.status, 200, "{form}: {}", answer.text());
                continue;
            };
            assert_eq!(
                (answer.status, answer.error().1.as_deref()),
                (400, Some(form)),
                "{limit}"
            );
            assert!(answer.text().contains(limit), "{}", answer.text());
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn values_of_any_form_are_bounded_in_number() {
    let mut settings = Settings::default();
    settings.chat.max_values = 64;
    let server = Server::start(settings, |_| Ok(replay(vec![finished()]))).await;
    let object = |values: usize| {
        let list = vec!["0"; values - 2].join(",");
        format!(r#"{{"a":[{list}]}}"#)
    };
    let tools = |values: &[usize]| {
        let tools = values.iter().map(|values| {
            let schema = object(*values);
            format!(r#"{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}"#)
        });
        format!(r#","tools":[{}]"#, tools.collect::<Vec<_>>().join(","))
    };
    let kwargs = |values: usize| format!(r#","chat_template_kwargs":{}"#, object(values));
    for (fields, blamed) in [
        (tools(&[64]), None),
        (tools(&[65]), Some("tools[0].function.parameters")),
        (tools(&[32, 32]), None),
        (tools(&[32, 33]), Some("tools[1].function.parameters")),
        (kwargs(64), None),
        (kwargs(65), Some("chat_template_kwargs")),
        (format!("{}{}", tools(&[64]), kwargs(64)), None),
    ] {
        let answer = ask(&server, &fields).await;
        let Some(blamed) = blamed else {
            assert_eq!(answer.status, 200, "{fields}: {}", answer.text());
            continue;
        };
        let (_, param, code) = answer.error();
        assert_eq!(
            (answer.status, param.as_deref(), &*code),
            (400, Some(blamed), "too_many_values")
        );
        assert!(answer.text().contains("max-values"), "{}", answer.text());
    }
    server.shut_down().await;
}

/// Whatever such a model wrote of a call would be content, and an agent would take it for its answer.
#[tokio::test]
async fn a_model_whose_calls_cannot_be_told_from_content_is_given_no_functions() {
    let server = Server::start(Settings::default(), |_| Ok(replay(vec![finished()]))).await;
    let function = r#"{"name":"f"}"#;
    let tools = format!(r#","tools":[{{"type":"function","function":{function}}}]"#);
    let functions = format!(r#","functions":[{function}]"#);
    for path in [CHAT, "/apply-template"] {
        for (model, fields, refused) in [
            ("tiny", &*tools, Some("tools")),
            ("tiny", &*functions, Some("functions")),
            ("tiny", &format!(r#"{tools},"tool_choice":"none""#), None),
            ("tiny", r#","tools":[]"#, None),
            ("thinker", &*tools, None),
            ("thinker", &*functions, None),
        ] {
            let messages = r#"[{"role":"user","content":"hi"}]"#;
            let body = format!(r#"{{"model":"{model}","messages":{messages}{fields}}}"#);
            let answer = server.post(path, &body).await;
            let Some(param) = refused else {
                assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
                continue;
            };
            let (_, blamed, code) = answer.error();
            assert_eq!(
                (answer.status, blamed.as_deref(), &*code),
                (400, Some(param), "unsupported_parameter"),
                "{path} {body}"
            );
            let text = answer.json()["error"]["message"].to_string();
            assert!(text.contains("does not support tools"), "{text}");
        }
    }
    server.shut_down().await;
}
