//! The body of a request that has parameters of its own beside those that all requests for answers share, as
//! `/openapi.json` describes it.

/// A request's own parameters beside the shared ones, as they are read.
macro_rules! with_shared_parameters {
    ($name:ident, $($own:ty),+) => {
        pub(crate) struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use crate::http::dialects::format_fields::FormatParameters;
                use crate::http::dialects::parameters::SharedParameters;
                use utoipa::ToSchema;
                use utoipa::openapi::schema::{AllOfBuilder, Ref};

                AllOfBuilder::new()
                    $(.item(Ref::from_schema_name(<$own as ToSchema>::name())))+
                    .item(Ref::from_schema_name(<SharedParameters as ToSchema>::name()))
                    .item(Ref::from_schema_name(<FormatParameters as ToSchema>::name()))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    };
}

pub(crate) use with_shared_parameters;
